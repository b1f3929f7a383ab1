//! Mounts in which a file never changes, or is never replaced.
//!
//! A volume's files are exchanged by way of a link, `..data`, that leads to a
//! directory such as `..2026_11_21_10_00_00.123`. What Kubernetes mounts by
//! subPath is a part of that directory, and stays the one that it was: the root of
//! its mount tells (`man 5 proc_pid_mountinfo`, kubernetes issue 50345).

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// How much of `mountinfo` is read, in bytes.
const TEXT_MAX: u64 = 4 << 20;

/// How a file is mounted that will not change as others do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mounted {
    /// From a directory of a volume that is exchanged as a whole.
    BySubPath,
    /// By itself, so that no other file can take its name.
    Alone,
}

/// The mounts as this process sees them.
pub(super) struct Mounts {
    proc_root: Box<Path>,
    text: Vec<u8>,
}

impl Mounts {
    /// # Errors
    /// There is no `mountinfo` to read.
    pub(super) fn read(proc_root: &Path) -> io::Result<Self> {
        let mut text = Vec::new();
        let file = File::open(proc_root.join("self/mountinfo"))?;
        file.take(TEXT_MAX).read_to_end(&mut text)?;
        Ok(Self { proc_root: proc_root.into(), text })
    }

    /// How the file or directory at that path is mounted, which is no link; `None`:
    /// as others are, or nobody knows.
    pub(super) fn mounted(&self, path: &Path) -> Option<Mounted> {
        let file = File::options()
            .read(true)
            .custom_flags(libc::O_PATH | libc::O_NOFOLLOW)
            .open(path)
            .ok()?;
        let info = self.proc_root.join("self/fdinfo").join(file.as_raw_fd().to_string());
        let info = std::fs::read_to_string(info).ok()?;
        let id = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim();
        let is_directory = file.metadata().ok()?.is_dir();
        mounted(&self.text, id, path, is_directory)
    }
}

/// The same, of the mount with that id.
fn mounted(mountinfo: &[u8], id: &str, path: &Path, is_directory: bool) -> Option<Mounted> {
    let mut lines = mountinfo.split(|byte| *byte == b'\n');
    // 36 35 98:0 /root /point rw,noatime - ext4 /dev/root rw
    let (root, point) = lines.find_map(|line| {
        let mut fields = line.split(|byte| *byte == b' ');
        let is_it = fields.next() == Some(id.as_bytes());
        let (root, point) = (fields.nth(2)?, fields.next()?);
        is_it.then_some((root, point))
    })?;
    let is_of_generation = |name: &[u8]| name.starts_with(b"..") && name.len() > 2;
    if root.split(|byte| *byte == b'/').any(is_of_generation) {
        Some(Mounted::BySubPath)
    } else if !is_directory && unescaped(point) == path.as_os_str().as_bytes() {
        Some(Mounted::Alone)
    } else {
        None
    }
}

/// Blanks and backslashes are written as `\040`, in octal.
fn unescaped(field: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        let digits = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        let escaped = digits.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        match escaped.filter(|_| *first == b'\\') {
            Some(byte) => {
                text.push(byte);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                text.push(*first);
                rest = after;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
22 1 0:21 / / rw,relatime - overlay overlay rw
31 22 8:1 /var/lib/kubelet/pods/1f/volumes/kubernetes.io~configmap/web /etc/web ro - ext4 /dev/sda1 rw
32 22 8:1 /var/lib/kubelet/pods/1f/volumes/kubernetes.io~configmap/web/..2026_11_21_10_00_00.1/a.conf /etc/a.conf ro - ext4 /dev/sda1 rw
33 22 0:52 /..2026_11_21_10_00_00.1/token//deleted /run/token ro - tmpfs tmpfs rw
34 22 0:52 /..2026_11_21_10_00_00.1/conf.d /etc/conf.d ro - tmpfs tmpfs rw
35 22 8:1 /home/me/app\\040one.conf /etc/app\\040one.conf rw - ext4 /dev/sda1 rw
";

    fn of(id: &str, path: &str, is_directory: bool) -> Option<Mounted> {
        mounted(MOUNTINFO.as_bytes(), id, Path::new(path), is_directory)
    }

    #[test]
    fn what_is_mounted_by_sub_path_is_known_by_its_root() {
        assert_eq!(of("32", "/etc/a.conf", false), Some(Mounted::BySubPath));
        assert_eq!(of("33", "/run/token", false), Some(Mounted::BySubPath));
        assert_eq!(of("34", "/etc/conf.d", true), Some(Mounted::BySubPath));
        assert_eq!(of("34", "/etc/conf.d/a.conf", false), Some(Mounted::BySubPath));
    }

    #[test]
    fn a_file_that_is_a_mount_point_is_alone() {
        assert_eq!(of("35", "/etc/app one.conf", false), Some(Mounted::Alone));
    }

    #[test]
    fn whole_volumes_and_the_unknown_are_as_others() {
        assert_eq!(of("31", "/etc/web/..2026_11_21_10_00_00.1/a.conf", false), None);
        assert_eq!(of("31", "/etc/web", true), None);
        assert_eq!(of("22", "/etc/passwd", false), None);
        assert_eq!(of("99", "/etc/passwd", false), None);
        assert_eq!(mounted(b"32\n32 \n32 1 2 3\n\xff", "32", Path::new("/a"), false), None);
        assert_eq!(
            Mounts::read(Path::new("/nonexistent")).err().map(|error| error.kind()),
            Some(io::ErrorKind::NotFound)
        );
    }

    #[test]
    fn this_process_has_a_mount_for_each_of_its_files() {
        let mounts = Mounts::read(Path::new("/proc")).expect("/proc");
        assert_eq!(mounts.mounted(Path::new("/proc/self/status")), None);
        assert_eq!(mounts.mounted(Path::new("/nonexistent")), None);
    }
}
