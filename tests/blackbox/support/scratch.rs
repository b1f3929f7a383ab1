//! A directory of a test's own, for the records of its children.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::wait_until;

/// Goes with everything in it when it is dropped.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("castoff-blackbox-{}-{nth}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    /// The path of a file in it, which need not exist.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.join(name).into_os_string().into_string().expect("a path of text")
    }

    /// The path of a new file with that content.
    #[track_caller]
    pub(crate) fn file(&self, name: &str, content: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        fs::write(&path, content).expect("a writable directory");
        path
    }

    /// The same with that mode, such as `755`, ready to be executed.
    ///
    /// Not written by this process: whatever another test forks meanwhile would
    /// have it open for writing, and nobody could execute it (ETXTBSY).
    #[track_caller]
    pub(crate) fn program(&self, name: &str, mode: &str, content: &str) -> String {
        let path = self.path(name);
        let write = r#"printf %s "$3" > "$1" && chmod "$2" "$1""#;
        let shell = ["-c", write, "sh", &path, mode, content];
        let status = Command::new("/bin/sh").args(shell).status();
        assert!(status.expect("a shell").success(), "cannot write {path}");
        path
    }

    /// The same with any bytes.
    #[track_caller]
    pub(crate) fn binary(&self, name: &str, content: &[u8]) -> String {
        let (path, data) = (self.path(name), self.file(&format!("{name}.data"), content));
        let copy = r#"cp "$1" "$2" && chmod 755 "$2""#;
        let status = Command::new("/bin/sh").args(["-c", copy, "sh", &data, &path]).status();
        assert!(status.expect("a shell").success(), "cannot write {path}");
        path
    }

    /// What a child has written to a file so far; nothing while there is none.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Waits until a file holds a line that begins with `start`.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, name: &str, start: &str) -> String {
        wait_until(&format!("{name} has a line {start:?}"), || {
            let text = self.read(name);
            // Without its end the line may still be growing.
            let mut lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
            lines.find(|line| line.starts_with(start)).map(|line| line.trim_end().to_owned())
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
