//! Real files, and what is none.

use super::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::sync::atomic::{AtomicU32, Ordering};

const PATIENCE: Duration = Duration::from_secs(10);
const OWN: &str = "child exited by itself: exit code 3\n(castoff 0.1.0)\n";

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("castoff-termination-{}-{nth}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        self.0.join("message")
    }

    fn read(&self) -> String {
        fs::read_to_string(self.file()).expect("a file")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[track_caller]
fn write(log: &TerminationLog, text: &str) -> Option<String> {
    log.write(text);
    log.finish(PATIENCE);
    log.failure().map(|error| error.to_string())
}

#[test]
fn a_named_file_is_made_and_written_in_place() {
    let place = Place::new();
    let log = TerminationLog::named(place.file());
    assert_eq!(write(&log, "a longer text\n"), None);
    let made = fs::metadata(place.file()).expect("it is there");
    assert_eq!(made.permissions().mode() & 0o777 & !0o644, 0, "{:?}", made.permissions());
    let inode = |place: &Place| {
        use std::os::unix::fs::MetadataExt;
        fs::metadata(place.file()).expect("a file").ino()
    };
    let before = inode(&place);
    assert_eq!(write(&log, "shorter\n"), None);
    assert_eq!((place.read().as_str(), inode(&place)), ("shorter\n", before));
    assert_eq!(write(&log, ""), None);
    assert_eq!(place.read(), "");
}

#[test]
fn the_usual_file_is_not_made() {
    let place = Place::new();
    let log = TerminationLog::new(place.file(), true);
    assert_eq!(write(&log, OWN), None);
    assert!(!place.file().exists());
    fs::write(place.file(), "").expect("a file");
    assert_eq!(write(&log, OWN), None);
    assert_eq!(place.read(), OWN);
}

#[test]
fn nothing_is_taken_back_where_nothing_is() {
    let place = Place::new();
    let log = TerminationLog::named(place.file());
    assert_eq!(write(&log, ""), None);
    assert!(!place.file().exists());
}

#[test]
fn what_the_program_wrote_stays() {
    let place = Place::new();
    let log = TerminationLog::named(place.file());
    fs::write(place.file(), "fatal: no such table\n").expect("a file");
    for text in [OWN, ""] {
        assert_eq!(write(&log, text), None);
        assert_eq!(place.read(), "fatal: no such table\n");
    }
    // Also after castoff, and over what castoff wrote.
    fs::write(place.file(), "").expect("a file");
    assert_eq!(write(&log, OWN), None);
    fs::write(place.file(), "FATAL".to_owned() + &OWN[5..]).expect("a file");
    for text in [OWN, ""] {
        assert_eq!(write(&log, text), None);
        assert_eq!(place.read(), "FATAL".to_owned() + &OWN[5..]);
    }
}

#[test]
fn a_castoff_before_is_followed() {
    let place = Place::new();
    fs::write(place.file(), OWN).expect("a file");
    assert_eq!(write(&TerminationLog::named(place.file()), ""), None);
    assert_eq!(place.read(), "");
    // Longer than castoff writes.
    let long = "x".repeat(LONGEST) + "\n" + OWN;
    fs::write(place.file(), &long).expect("a file");
    assert_eq!(write(&TerminationLog::named(place.file()), "new\n"), None);
    assert_eq!(place.read(), long);
}

#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let place = Place::new();
    let refused = Some("not a regular file".to_owned());
    nix::unistd::mkfifo(&place.file(), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    assert_eq!(write(&TerminationLog::named(place.file()), OWN), refused);
    for device in ["/dev/null", "/dev/full", "/tmp"] {
        assert_eq!(write(&TerminationLog::named(device.into()), OWN), refused, "{device}");
    }
    let link = place.0.join("link");
    fs::write(place.0.join("target"), "").expect("a file");
    symlink(place.0.join("target"), &link).expect("a link");
    assert_eq!(write(&TerminationLog::named(link), OWN), refused);
    assert_eq!(fs::read(place.0.join("target")).expect("a file"), b"");
}

#[test]
fn a_failure_is_told_once() {
    let log = TerminationLog::named("/nonexistent/message".into());
    let failure = write(&log, OWN).expect("there is no such directory");
    assert!(failure.starts_with("No such file or directory"), "{failure}");
    assert!(log.failure().is_none());
}

#[test]
fn the_last_word_counts() {
    let place = Place::new();
    let log = TerminationLog::named(place.file());
    for nth in 0..200 {
        log.write(&format!("word {nth}\n"));
    }
    assert_eq!(write(&log, "the last\n"), None);
    assert_eq!(place.read(), "the last\n");
}
