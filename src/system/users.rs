//! Users: the files that name them, castoff's own, and whose the standard streams
//! are.
//!
//! By the text of the files, not by the C library's look-up, which wants shared
//! libraries that a static binary cannot load. What the text says is decided in
//! `policy::user`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Uid, fchown, getresgid, getresuid, isatty};

use crate::policy::user::{GROUP, PASSWD};

/// The most that is read of a file. Those of images have a few KiB.
const LONGEST: u64 = 4 << 20;

/// The text of `/etc/passwd` and of `/etc/group`; a file that is not there, or
/// cannot be read, is empty.
pub(crate) fn files() -> [Vec<u8>; 2] {
    [PASSWD, GROUP].map(|path| read(path).unwrap_or_default())
}

fn read(path: &str) -> io::Result<Vec<u8>> {
    // Nothing that would have to be waited for.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    if text.len() as u64 == LONGEST {
        // Half a line would be another user.
        let end = text.iter().rposition(|byte| *byte == b'\n').unwrap_or_default();
        text.truncate(end);
    }
    Ok(text)
}

/// Whether castoff is that user, and has that group if there is one: for real, in
/// effect and to return to.
pub(crate) fn is_already(uid: u32, gid: Option<u32>) -> bool {
    let is_user = getresuid()
        .is_ok_and(|ids| [ids.real, ids.effective, ids.saved].iter().all(|id| id.as_raw() == uid));
    let is_group = |gid| {
        getresgid().is_ok_and(|ids| {
            [ids.real, ids.effective, ids.saved].iter().all(|id| id.as_raw() == gid)
        })
    };
    is_user && gid.is_none_or(is_group)
}

/// Gives the standard streams to the user, as runtimes do for the one of the
/// image: else it could write to descriptor 2 but not open `/dev/stderr`, for a
/// pipe and a terminal have an owner. No other file is touched, and what castoff
/// may not give away stays as it is.
pub(crate) fn give_streams(uid: u32) {
    let (stdin, stdout, stderr) = (io::stdin(), io::stdout(), io::stderr());
    for stream in [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()] {
        if owner_of(stream).is_some_and(|owner| owner != uid) {
            // A file system that is read-only or knows no such user says no.
            let _ = fchown(stream, Some(Uid::from_raw(uid)), None);
        }
    }
}

/// The owner of a pipe or a terminal.
fn owner_of(stream: BorrowedFd<'_>) -> Option<u32> {
    let stat = fstat(stream).ok()?;
    let is_given = match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFIFO => true,
        SFlag::S_IFCHR => isatty(stream).unwrap_or_default(),
        _ => false,
    };
    is_given.then_some(stat.st_uid)
}

#[cfg(test)]
mod tests {
    use nix::unistd::Gid;

    use super::*;

    #[test]
    fn the_files_of_this_machine_are_read() {
        let [passwd, group] = files();
        assert!(passwd.starts_with(b"root:") && group.starts_with(b"root:"));
        assert!(read("/no/such/file").is_err() && read("/etc").is_err());
        let null = read("/dev/null");
        assert!(null.is_err(), "a device is no file");
    }

    #[test]
    fn only_all_of_the_ids_make_castoff_that_user() {
        let (uid, gid) = (Uid::current().as_raw(), Gid::current().as_raw());
        assert!(is_already(uid, None) && is_already(uid, Some(gid)));
        assert!(!is_already(uid + 1, None) && !is_already(uid, Some(gid + 1)));
    }

    #[test]
    fn pipes_have_owners_and_files_keep_theirs() {
        let (reader, _writer) = io::pipe().unwrap();
        assert_eq!(owner_of(reader.as_fd()), Some(Uid::current().as_raw()));
        for path in ["/dev/null", "/etc/passwd", "/"] {
            assert_eq!(owner_of(File::open(path).unwrap().as_fd()), None, "{path}");
        }
    }
}
