//! Reads a directory whose files are variables: a mounted Secret or ConfigMap.
//!
//! It waits for nothing but the file system: what is no regular file is not
//! opened. What a file means is decided in `policy::env_dir`.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::policy::env_dir::{BadValue, FILES_MAX, Kind, Refusal, VARIABLE_MAX, Variables, kind};

/// How often a directory is read anew because it was exchanged meanwhile.
const TRIES: usize = 3;

/// What a directory held.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Contents {
    /// How many variables.
    pub(crate) count: usize,
    /// What was left out, by rising name.
    pub(crate) refused: Vec<(OsString, Refusal)>,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{path}: {error}, expected directories of readable files", path = .0.display(), error = .1)]
    Unreadable(PathBuf, io::Error),
    #[error("{}: more than {FILES_MAX} files", .0.display())]
    TooMany(PathBuf),
    /// The file is named, its content never.
    #[error("{path}: {error}", path = .0.display(), error = .1)]
    Value(PathBuf, BadValue),
}

/// Adds the variables of a directory to those of the ones before it.
///
/// # Errors
/// See `Failure`. Then nothing was added.
pub(crate) fn read(directory: &Path, variables: &mut Variables) -> Result<Contents, Failure> {
    let mut tries = 1..=TRIES;
    loop {
        // A volume's files are links by way of this one, so that all of them
        // change at once: only what was read without a change is of one piece.
        let generation = || fs::read_link(directory.join("..data")).ok();
        let before = generation();
        let mut found = variables.clone();
        let contents = read_once(directory, &mut found);
        if before == generation() || tries.next().is_none() {
            let contents = contents?;
            *variables = found;
            return Ok(contents);
        }
    }
}

fn read_once(directory: &Path, variables: &mut Variables) -> Result<Contents, Failure> {
    let unreadable = |error| Failure::Unreadable(directory.to_owned(), error);
    let mut names: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let name = entry.map_err(unreadable)?.file_name();
        let place = names.binary_search(&name).unwrap_or_else(|place| place);
        names.insert(place, name);
        if names.len() > FILES_MAX {
            return Err(Failure::TooMany(directory.to_owned()));
        }
    }
    let mut contents = Contents::default();
    for name in names {
        let kind = kind(name.as_bytes());
        let path = directory.join(&name);
        let refusal = match (kind, fs::metadata(&path)) {
            (Kind::Hidden, _) => continue,
            (_, Ok(metadata)) if metadata.is_dir() => continue,
            (Kind::Refused(refusal), _) => refusal,
            (Kind::Variable, Ok(metadata)) if metadata.is_file() => match content(&path) {
                Ok(content) => {
                    let inserted = variables.insert(name.as_bytes(), &content);
                    inserted.map_err(|error| Failure::Value(path, error))?;
                    contents.count += 1;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Refusal::Gone,
                Err(error) => return Err(Failure::Unreadable(path, error)),
            },
            (Kind::Variable, Ok(_)) => Refusal::NoFile,
            (Kind::Variable, Err(error)) if error.kind() == io::ErrorKind::NotFound => {
                Refusal::Gone
            }
            (Kind::Variable, Err(error)) => return Err(Failure::Unreadable(path, error)),
        };
        contents.refused.push((name, refusal));
    }
    Ok(contents)
}

fn content(path: &Path) -> io::Result<Vec<u8>> {
    // It may have become something else since it was looked at.
    let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::NotFound.into());
    }
    let mut content = Vec::new();
    // Enough to see that it is too long, whatever its end.
    file.take(VARIABLE_MAX as u64 + 4).read_to_end(&mut content)?;
    Ok(content)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    /// Goes with everything in it.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("castoff-env-{}-{name}", std::process::id()));
            fs::create_dir(&path).unwrap();
            Self(path)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn all(directory: &Path) -> (Vec<(String, String)>, Contents) {
        let mut variables = Variables::default();
        let contents = read(directory, &mut variables).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (variables.iter().map(|(name, value)| (text(name), text(value))).collect(), contents)
    }

    #[test]
    fn a_mounted_volume_is_read_through_its_links() {
        let scratch = Scratch::new("volume");
        let at = |name: &str| scratch.0.join(name);
        fs::create_dir(at("..2026_11_21")).unwrap();
        fs::write(at("..2026_11_21/TOKEN"), "s3cret\n").unwrap();
        fs::write(at("..2026_11_21/tls.crt"), "-----BEGIN").unwrap();
        symlink("..2026_11_21", at("..data")).unwrap();
        symlink("..data/TOKEN", at("TOKEN")).unwrap();
        symlink("..data/tls.crt", at("tls.crt")).unwrap();
        symlink("..data/REMOVED", at("REMOVED")).unwrap();
        let (variables, contents) = all(&scratch.0);
        assert_eq!(variables, [("TOKEN".to_owned(), "s3cret".to_owned())]);
        assert_eq!(contents.count, 1);
        let refused = [("REMOVED", Refusal::Gone), ("tls.crt", Refusal::NoName)];
        assert_eq!(contents.refused, refused.map(|(name, refusal)| (name.into(), refusal)));
        // As the kubelet does it.
        fs::create_dir(at("..2026_11_22")).unwrap();
        fs::write(at("..2026_11_22/TOKEN"), "other\r\n").unwrap();
        symlink("..2026_11_22", at("..data_tmp")).unwrap();
        fs::rename(at("..data_tmp"), at("..data")).unwrap();
        assert_eq!(all(&scratch.0).0, [("TOKEN".to_owned(), "other".to_owned())]);
    }

    #[test]
    fn what_is_no_file_is_never_opened() {
        let scratch = Scratch::new("kinds");
        let at = |name: &str| scratch.0.join(name);
        mkfifo(&at("FIFO"), Mode::S_IRWXU).unwrap();
        fs::create_dir(at("DIRECTORY")).unwrap();
        symlink("/dev/zero", at("DEVICE")).unwrap();
        symlink("nowhere", at("A")).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("SOCKET")).unwrap();
        fs::write(at("CASTOFF_USER"), "root").unwrap();
        let (variables, contents) = all(&scratch.0);
        assert_eq!(variables, []);
        let refused = [
            ("A", Refusal::Gone),
            ("CASTOFF_USER", Refusal::OwnSetting),
            ("DEVICE", Refusal::NoFile),
            ("FIFO", Refusal::NoFile),
            ("SOCKET", Refusal::NoFile),
        ];
        assert_eq!(contents.refused, refused.map(|(name, refusal)| (name.into(), refusal)));
    }

    #[test]
    fn errors_name_the_file_and_add_nothing() {
        let scratch = Scratch::new("errors");
        let at = |name: &str| scratch.0.join(name);
        let error =
            |variables: &mut Variables| read(&scratch.0, variables).unwrap_err().to_string();
        let mut variables = Variables::default();
        fs::write(at("A"), "fine").unwrap();
        for (content, cause) in [
            (b"s3cr\0et".to_vec(), "a variable cannot hold a NUL"),
            (vec![b'x'; VARIABLE_MAX], "a variable cannot be longer than 131072 bytes"),
            (vec![b'x'; VARIABLE_MAX * 9], "a variable cannot be longer than 131072 bytes"),
        ] {
            fs::write(at("BAD"), content).unwrap();
            assert_eq!(error(&mut variables), format!("{}: {cause}", at("BAD").display()));
            assert_eq!(variables, Variables::default());
        }
        fs::remove_file(at("BAD")).unwrap();
        for nth in 0..FILES_MAX {
            fs::write(at(&format!(".{nth}")), "").unwrap();
        }
        assert!(error(&mut variables).ends_with("more than 4096 files"));
        let missing = read(&at("missing"), &mut variables).unwrap_err().to_string();
        assert!(missing.ends_with("missing: No such file or directory (os error 2), expected directories of readable files"), "{missing}");
        let file = read(&at("A"), &mut variables).unwrap_err().to_string();
        assert!(file.contains("A: Not a directory"), "{file}");
    }

    #[test]
    fn a_value_has_exactly_the_room_that_the_kernel_gives() {
        let scratch = Scratch::new("room");
        let longest = VARIABLE_MAX - "A=\0".len();
        fs::write(scratch.0.join("A"), [&vec![b'x'; longest][..], b"\r\n"].concat()).unwrap();
        let (variables, _) = all(&scratch.0);
        assert_eq!(variables[0].1.len(), longest);
        let shown = format!("A={}", variables[0].1);
        let run = std::process::Command::new("/bin/true").env("A", &shown[2..]).status();
        assert!(run.unwrap().success());
    }
}
