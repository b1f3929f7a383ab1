//! The children: this repository's examples, built beside the tests.

use std::path::PathBuf;

/// The path of a built example.
#[track_caller]
pub(crate) fn example(name: &str) -> String {
    let test = std::env::current_exe().expect("a test knows its own path");
    let profile = test.ancestors().nth(2).expect("target/<triple>/<profile>/deps/<test>");
    let path: PathBuf = profile.join("examples").join(name);
    assert!(path.exists(), "no {}: run `cargo build --examples` first", path.display());
    path.into_os_string().into_string().expect("a path of text")
}
