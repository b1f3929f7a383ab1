//! A directory for the files of one test.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// The directory; it goes with the test.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    #[track_caller]
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("castoff-test-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file with that mode and returns its path.
    ///
    /// Not from this process: whatever another test forks meanwhile would have
    /// the file open for writing, and nobody could execute it (ETXTBSY).
    #[track_caller]
    pub(crate) fn file(&self, name: &str, mode: &str, text: &str) -> String {
        let path = self.0.join(name).into_os_string().into_string().expect("a path of text");
        let write = r#"printf %s "$3" > "$1" && chmod "$2" "$1""#;
        let status = Command::new("/bin/sh").args(["-c", write, "sh", &path, mode, text]).status();
        assert!(status.expect("a shell").success(), "cannot write {path}");
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
