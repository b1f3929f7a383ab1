//! What the fuzz targets call of the configuration.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::file;
use super::settings::Settings;
use super::target::{target as parse, target_text};

/// What is printed is read back as the same target; bytes that are no UTF-8 are
/// printed as something else.
pub(crate) fn target(text: &[u8]) {
    let Some(target) = parse(OsStr::from_bytes(text)) else { return };
    assert!(!target.label().is_empty());
    if std::str::from_utf8(text).is_ok() {
        let printed = target_text(&target);
        assert_eq!(parse(OsStr::new(&printed)), Some(target), "{printed:?}");
    }
}

/// A file, and what follows from its values together.
pub(crate) fn file(text: &[u8]) {
    let Ok(text) = std::str::from_utf8(text) else { return };
    let mut errors = Vec::new();
    let mut settings = Settings::new(false);
    let contents = file::parse(Path::new("f"), text, &mut errors);
    for given in &contents.given {
        settings.apply(given, &mut errors);
    }
    settings.add_tables(contents.checks);
    settings.stop_plan(&mut errors);
    settings.restart_rules(&mut errors);
    settings.checks(&mut errors);
    let printed = settings.print();
    assert!(!printed.is_empty());
    assert!(errors.iter().all(|error| !error.to_string().is_empty()));
}
