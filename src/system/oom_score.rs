//! castoff's own place in the queue of the OOM killer, and that of what it starts.
//!
//! The numbers are `policy::oom_score`'s. Where `/proc` is hidden or read-only,
//! everything stays as it was: four system calls at the start, two for each
//! process. The kernel keeps the number per process, also while one that was
//! made by vfork shares castoff's memory (fs/proc/base.c, `__set_oom_adj`).
#![expect(unsafe_code, reason = "a file that is written in the child's half")]

use std::ffi::CString;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::errno::Errno;

use crate::policy::oom_score::{NEVER, raised};

/// What was done at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OomScore {
    /// castoff's own by now.
    pub(crate) own: i32,
    /// What every process that castoff starts gets.
    pub(crate) started: i32,
    path: CString,
    text: String,
}

/// Makes castoff the last to be killed: by lowering its own number (which takes
/// CAP_SYS_RESOURCE; those that it starts get the one that it had), else by
/// raising theirs. `limit_bytes` is the memory limit. `None`: nothing was to be
/// done, or nothing can be.
pub(crate) fn protect(proc_root: &Path, limit_bytes: Option<u64>) -> Option<OomScore> {
    let path = proc_root.join("self/oom_score_adj");
    let file = File::options().read(true).write(true).open(&path).ok()?;
    let mut bytes = [0; 16];
    let length = file.read_at(&mut bytes, 0).ok()?;
    let text = str::from_utf8(bytes.get(..length)?).ok()?;
    let inherited: i32 = text.trim().parse().ok()?;
    if inherited <= NEVER {
        return None;
    }
    let (own, started) = if file.write_at(NEVER.to_string().as_bytes(), 0).is_ok() {
        (NEVER, inherited)
    } else {
        (inherited, raised(inherited, limit_bytes, page_bytes())?)
    };
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    Some(OomScore { own, started, path, text: started.to_string() })
}

fn page_bytes() -> u64 {
    // SAFETY: takes a number; the C library knows the answer from the start.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

impl OomScore {
    /// In the child's half: allocates nothing.
    ///
    /// # Errors
    /// Only when the process would be one that is never killed.
    pub(super) fn write_own(&self) -> Result<(), Errno> {
        // SAFETY: a path that ends with NUL and bytes of that length; the
        // descriptor is one of the half's own table.
        let written = unsafe {
            let fd = libc::open(self.path.as_ptr(), libc::O_WRONLY | libc::O_CLOEXEC);
            Errno::result(fd).and_then(|fd| {
                Errno::result(libc::write(fd, self.text.as_ptr().cast(), self.text.len()))
            })
        };
        match written {
            Err(error) if self.own == NEVER => Err(error),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A directory with this in the place of the kernel's file.
    fn on(text: &str, test: impl FnOnce(&Path)) {
        let path =
            std::env::temp_dir().join(format!("castoff-oom-{}-{}", std::process::id(), text.len()));
        fs::create_dir_all(path.join("self")).unwrap();
        fs::write(path.join("self/oom_score_adj"), text).unwrap();
        test(&path);
        fs::remove_dir_all(&path).unwrap();
    }

    #[test]
    fn who_may_lower_its_own_number_gives_the_old_one_to_all_others() {
        on("-997\n", |root| {
            let score = protect(root, Some(1 << 30)).unwrap();
            assert_eq!((score.own, score.started), (NEVER, -997));
            assert_eq!(fs::read_to_string(root.join("self/oom_score_adj")).unwrap(), "-1000");
            // As in the child's half; a kernel takes the bytes for a whole number.
            assert_eq!(score.write_own(), Ok(()));
            assert_eq!(fs::read_to_string(root.join("self/oom_score_adj")).unwrap(), "-9970");
            fs::remove_file(root.join("self/oom_score_adj")).unwrap();
            assert_eq!(score.write_own(), Err(Errno::ENOENT), "it would never be killed");
            let raised = OomScore { own: 0, ..score };
            assert_eq!(raised.write_own(), Ok(()));
        });
    }

    #[test]
    fn what_is_odd_changes_nothing() {
        for text in ["-1000\n", "", "x\n", "12345678901234567890\n"] {
            on(text, |root| {
                assert_eq!(protect(root, Some(1 << 30)), None, "{text:?}");
                assert_eq!(fs::read_to_string(root.join("self/oom_score_adj")).unwrap(), text);
            });
        }
        assert_eq!(protect(Path::new("/no/such/proc"), None), None);
    }
}
