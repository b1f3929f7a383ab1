//! Looking at a process of another user as that user, and what every change of a
//! user does to castoff's own memory.
//!
//! Nothing here lasts: castoff stays who it is.
#![expect(unsafe_code, reason = "the user of one thread's looks at files")]

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Gid, Uid};

/// While it lives, files are looked at as another user would (`man 2 setfsuid`):
/// of a process with another user than castoff's the kernel shows the descriptors
/// to that user, and else to nobody without CAP_SYS_PTRACE, which runtimes do not
/// give (`man 7 proc`, `man 2 ptrace`). For this thread only, by the calls
/// themselves. Where castoff may not, nothing changes.
pub(crate) struct Eyes {
    uid: u32,
    gid: u32,
    is_dumpable: bool,
}

impl Eyes {
    /// Those of the user of that process; `None`: castoff's own will do, or the
    /// process has gone.
    pub(crate) fn of(process: &Path) -> Option<Self> {
        let owner = fs::metadata(process).ok()?;
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        if uid == owner.uid() {
            return None;
        }
        let eyes = Self { uid, gid, is_dumpable: is_dumpable() };
        // The group while the privilege for it is in effect.
        set_file_user(owner.uid(), owner.gid());
        Some(eyes)
    }
}

impl Drop for Eyes {
    fn drop(&mut self) {
        set_file_user(self.uid, self.gid);
        if self.is_dumpable {
            remain_dumpable();
        }
    }
}

fn set_file_user(uid: u32, gid: u32) {
    // SAFETY: numbers. They do not fail, and give what was there before.
    unsafe {
        libc::syscall(SYS_SETFSGID, gid);
        libc::syscall(SYS_SETFSUID, uid);
    }
}

// The oldest machines have calls for numbers of 16 bits besides.
#[cfg(not(any(target_arch = "x86", target_arch = "arm")))]
use libc::{SYS_setfsgid as SYS_SETFSGID, SYS_setfsuid as SYS_SETFSUID};
#[cfg(any(target_arch = "x86", target_arch = "arm"))]
use libc::{SYS_setfsgid32 as SYS_SETFSGID, SYS_setfsuid32 as SYS_SETFSUID};

/// Whether others of castoff's user may look into castoff, as they may into any
/// process (`man 2 PR_SET_DUMPABLE`).
pub(super) fn is_dumpable() -> bool {
    // SAFETY: takes a number.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) == 1 }
}

/// The flag belongs to the memory, and goes with every change of a user
/// (kernel/cred.c, `commit_creds`): castoff itself would be closed to all but root
/// when the child's half, which shares its memory, becomes another one.
pub(super) fn remain_dumpable() {
    // SAFETY: takes numbers.
    unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1 as libc::c_ulong) };
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    use super::*;

    /// The user by which this very thread looks at files.
    fn file_user() -> String {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("Uid:")).unwrap();
        line.rsplit('\t').next().unwrap().to_owned()
    }

    #[test]
    fn a_look_by_other_eyes_leaves_nothing_behind() {
        let own = file_user();
        assert!(Eyes::of(Path::new("/proc/self")).is_none());
        assert!(Eyes::of(Path::new("/proc/0")).is_none());
        if !Uid::effective().is_root() {
            eprintln!("SKIPPED: only root can have another user's eyes");
            return;
        }
        let mut child = Command::new("sleep").arg("600").uid(54321).gid(5).spawn().unwrap();
        let process = format!("/proc/{}", child.id());
        {
            let _eyes = Eyes::of(Path::new(&process)).unwrap();
            assert_eq!(file_user(), "54321");
            assert_eq!(
                fs::read_link(format!("{process}/exe")).unwrap(),
                fs::canonicalize("/bin/sleep").unwrap()
            );
        }
        assert_eq!(file_user(), own);
        assert!(is_dumpable());
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
