//! Opens the files that `policy::program` looks into, and gives it pieces.
//!
//! Only regular files that somebody may execute are opened: neither a FIFO nor a
//! device named as the program can hold castoff up or is disturbed. Nothing is
//! decided here, and whatever cannot be read is not there.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, OpenOptions};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

use super::{child, environment};
use crate::policy::program::{self, Opened, Pieces, Program};

/// Finds out what the child will be. As its own look-up will be, this one is
/// relative to `workdir`; without one, to castoff's own.
pub(crate) fn recognise(
    command: &[CString],
    environment: &[CString],
    workdir: Option<&Path>,
) -> Program {
    let inherited = environment::value_of(environment, "PATH");
    program::recognise(command.iter().map(|word| word.to_bytes().to_vec()), |name, path| {
        let files = child::files_of(&CString::new(name).ok()?, path.or(inherited));
        files.iter().find_map(|file| open(file, workdir))
    })
}

fn open(file: &CStr, workdir: Option<&Path>) -> Option<Opened<impl Pieces + use<>>> {
    let named = Path::new(OsStr::from_bytes(file.to_bytes()));
    let path = workdir.map_or_else(|| named.to_owned(), |workdir| workdir.join(named));
    let is_program =
        |metadata: &fs::Metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0;
    // Before it is opened, which alone may make a device do something.
    fs::metadata(&path).ok().filter(is_program)?;
    // A file may be executed that must not be read: its name still tells.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(&path)
        .ok()
        .filter(|file| file.metadata().is_ok_and(|metadata| is_program(&metadata)));
    let real_path = fs::canonicalize(&path).unwrap_or(path);
    Some(Opened {
        path: file.to_bytes().to_vec(),
        real_path: real_path.into_os_string().into_vec(),
        read: move |offset, length| piece(opened.as_ref(), offset, length),
    })
}

fn piece(file: Option<&File>, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    let count = file.and_then(|file| file.read_at(&mut bytes, offset).ok()).unwrap_or_default();
    bytes.truncate(count);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::program::Kind;

    fn recognised(command: &[&CStr], path: &CStr, workdir: Option<&Path>) -> Program {
        let command: Vec<CString> = command.iter().map(|word| (*word).to_owned()).collect();
        recognise(&command, &[path.to_owned()], workdir)
    }

    /// A directory of this test, with a program named `node` that cannot run.
    fn directory(name: &str) -> std::path::PathBuf {
        let directory = std::env::temp_dir().join(format!("castoff-{name}-{}", std::process::id()));
        fs::create_dir_all(directory.join("bin")).unwrap();
        let file = directory.join("bin/node");
        fs::write(&file, "text").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o111)).unwrap();
        directory
    }

    #[test]
    fn programs_are_looked_up_as_the_child_will_look_them_up() {
        let directory = directory("look-up");
        let _ = std::os::unix::fs::symlink("bin/node", directory.join("app"));
        fs::write(directory.join("node"), "not executable").unwrap();
        let path =
            CString::new(format!("PATH=/nonexistent:{0}:{0}/bin", directory.display())).unwrap();
        assert_eq!(recognised(&[c"node"], &path, None).kind, Kind::Node);
        assert_eq!(recognised(&[c"app"], &path, None).kind, Kind::Node);
        assert_eq!(recognised(&[c"node"], c"PATH=/nonexistent", None), Program::default());
        let here = Some(&*directory);
        for (name, path) in
            [(c"./app", c"PATH=/x"), (c"bin/node", c"PATH=/x"), (c"node", c"PATH=bin")]
        {
            assert_eq!(recognised(&[name], path, here).kind, Kind::Node, "{name:?}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened() {
        let directory = directory("fifo");
        let fifo = directory.join("python3");
        let mode = nix::sys::stat::Mode::from_bits_truncate(0o777);
        nix::unistd::mkfifo(&fifo, mode).unwrap();
        fs::create_dir(directory.join("java")).unwrap();
        let path = CString::new(format!("PATH={}:/dev", directory.display())).unwrap();
        for name in [c"python3", c"java", c"null", c"tty", c"", c"/"] {
            assert_eq!(recognised(&[name], &path, None), Program::default(), "{name:?}");
        }
        fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn this_test_is_no_go_program() {
        let own =
            CString::new(std::env::current_exe().unwrap().into_os_string().into_vec()).unwrap();
        let program = recognise(std::slice::from_ref(&own), &[], None);
        assert_eq!(program, Program { file: own.into_bytes(), ..Program::default() });
    }
}
