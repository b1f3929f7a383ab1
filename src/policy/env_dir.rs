//! What the files of a directory become: variables of the child.
//!
//! Owns the names, the values and who wins. It never reads a file, and never
//! puts a value into a text that somebody may see.

use std::fmt;

/// The most bytes of one variable, `NAME=value` and the NUL at its end: what the
/// kernel takes (MAX_ARG_STRLEN, `man 2 execve`) where pages are of 4 KiB.
pub(crate) const VARIABLE_MAX: usize = 128 * 1024;
/// The most bytes of all of them: half of what the kernel takes by default for
/// arguments and environment together (a quarter of RLIMIT_STACK).
pub(crate) const TOTAL_MAX: usize = 1024 * 1024;
/// The most files of a directory.
pub(crate) const FILES_MAX: usize = 4096;

/// What a file of a directory is to castoff, by its name alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its content is the value of a variable of that name.
    Variable,
    /// What a mounted volume keeps for itself: `..data`, `..2026_11_21_10_00`.
    Hidden,
    /// It is left out, and that is worth a word.
    Refused(Refusal),
}

/// Why a file becomes no variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Such as `tls.crt`.
    NoName,
    /// castoff has read its own settings by then.
    OwnSetting,
    /// A FIFO, a socket or a device.
    NoFile,
    /// It went while the directory was read, or is a link to nothing.
    Gone,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoName => "not a name of a variable",
            Self::OwnSetting => "settings of castoff are not read from here",
            Self::NoFile => "not a regular file",
            Self::Gone => "the file has gone",
        })
    }
}

/// What a file of that name is. The names are those of a shell
/// (`[A-Za-z_][A-Za-z0-9_]*`): Kubernetes allows more by now, but what is mounted
/// beside them (`tls.crt`, `ca.pem`) is meant to be read as a file.
pub(crate) fn kind(name: &[u8]) -> Kind {
    if name.starts_with(b"..") {
        return Kind::Hidden;
    }
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let is_name = name.first().is_some_and(is_letter)
        && name.iter().all(|byte| is_letter(byte) || byte.is_ascii_digit());
    match is_name {
        false => Kind::Refused(Refusal::NoName),
        true if name.starts_with(b"CASTOFF_") => Kind::Refused(Refusal::OwnSetting),
        true => Kind::Variable,
    }
}

/// What is wrong with a file that would be a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadValue {
    #[error("a variable cannot hold a NUL")]
    Nul,
    #[error("a variable cannot be longer than {VARIABLE_MAX} bytes")]
    TooLong,
    #[error("all variables together cannot be longer than {TOTAL_MAX} bytes")]
    TooMuch,
}

/// The variables of all directories, by name.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Variables {
    /// By rising name, each once.
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    /// Bytes of all names and values.
    size: usize,
}

/// Without values, which may be secrets.
impl fmt::Debug for Variables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.entries.iter().map(|(name, _)| String::from_utf8_lossy(name));
        f.debug_set().entries(names).finish()
    }
}

impl Variables {
    /// Takes the content of a file whose name is a `Kind::Variable`, without the
    /// line end at its own end. The directory that was named last wins, as with
    /// `envFrom` of a Pod.
    ///
    /// # Errors
    /// The environment cannot hold it.
    pub(crate) fn insert(&mut self, name: &[u8], content: &[u8]) -> Result<(), BadValue> {
        let value = content
            .strip_suffix(b"\n")
            .map_or(content, |line| line.strip_suffix(b"\r").unwrap_or(line));
        if value.contains(&0) {
            return Err(BadValue::Nul);
        }
        let size = size_of(name, value);
        if size > VARIABLE_MAX {
            return Err(BadValue::TooLong);
        }
        let freed = self.get(name).map_or(0, |replaced| size_of(name, replaced));
        let total = self.size - freed + size;
        if total > TOTAL_MAX {
            return Err(BadValue::TooMuch);
        }
        self.size = total;
        match self.place_of(name) {
            Err(place) => self.entries.insert(place, (name.to_owned(), value.to_owned())),
            Ok(place) => {
                if let Some((_, replaced)) = self.entries.get_mut(place) {
                    *replaced = value.to_owned();
                }
            }
        }
        Ok(())
    }

    /// Where a name is, or has to be.
    fn place_of(&self, name: &[u8]) -> Result<usize, usize> {
        self.entries.binary_search_by(|(known, _)| known.as_slice().cmp(name))
    }

    pub(crate) fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let (_, value) = self.entries.get(self.place_of(name).ok()?)?;
        Some(value)
    }

    /// Names and values, by rising name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.entries.iter().map(|(name, value)| (name.as_slice(), value.as_slice()))
    }
}

/// The bytes of `NAME=value` and the NUL at its end.
fn size_of(name: &[u8], value: &[u8]) -> usize {
    name.len() + value.len() + "=\0".len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value_of(content: &[u8]) -> Result<Vec<u8>, BadValue> {
        let mut variables = Variables::default();
        variables.insert(b"A", content)?;
        Ok(variables.iter().next().unwrap().1.to_owned())
    }

    #[test]
    fn names_are_those_of_a_shell() {
        for name in ["A", "_", "DATABASE_URL", "a1", "_9", "PATH", "castoff_x", "CASTOFF"] {
            assert_eq!(kind(name.as_bytes()), Kind::Variable, "{name}");
        }
        for name in ["tls.crt", "1A", "a-b", "", ".dockerconfigjson", "A B", "ü", "A=B", "A\n"] {
            assert_eq!(kind(name.as_bytes()), Kind::Refused(Refusal::NoName), "{name}");
        }
        assert_eq!(kind(b"\xff"), Kind::Refused(Refusal::NoName));
        assert_eq!(kind(b"CASTOFF_USER"), Kind::Refused(Refusal::OwnSetting));
        for name in ["..data", "..2026_11_21_10_00_00.123", "..", "..A"] {
            assert_eq!(kind(name.as_bytes()), Kind::Hidden, "{name}");
        }
    }

    #[test]
    fn one_line_end_is_taken_off_and_nothing_else() {
        for (content, value) in [
            (&b"s3cret"[..], &b"s3cret"[..]),
            (b"s3cret\n", b"s3cret"),
            (b"s3cret\r\n", b"s3cret"),
            (b"a\nb\n\n", b"a\nb\n"),
            (b"a\r", b"a\r"),
            (b" a \xff", b" a \xff"),
            (b"\n", b""),
            (b"", b""),
        ] {
            assert_eq!(value_of(content), Ok(value.to_owned()), "{content:?}");
        }
        assert_eq!(value_of(b"a\0b"), Err(BadValue::Nul));
        assert_eq!(value_of(b"\0"), Err(BadValue::Nul));
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused() {
        // "A=" and the NUL.
        assert!(value_of(&vec![b'x'; VARIABLE_MAX - 3]).is_ok());
        assert_eq!(value_of(&vec![b'x'; VARIABLE_MAX - 2]), Err(BadValue::TooLong));
        let mut variables = Variables::default();
        let large = vec![b'x'; VARIABLE_MAX / 2];
        let mut names = (0_u32..).map(|nth| format!("A{nth}").into_bytes());
        while variables.insert(&names.next().unwrap(), &large).is_ok() {}
        assert!(variables.iter().count() * VARIABLE_MAX / 2 <= TOTAL_MAX);
        // In the place of another one there is room.
        assert_eq!(variables.insert(b"A0", &large), Ok(()));
        assert_eq!(variables.insert(b"B", &large), Err(BadValue::TooMuch));
    }

    #[test]
    fn the_last_one_wins_and_values_are_not_shown() {
        let mut variables = Variables::default();
        for (name, value) in [(b"B", b"first"), (b"A", b"other"), (b"B", b"later")] {
            variables.insert(name, value).unwrap();
        }
        let all: Vec<_> = variables.iter().collect();
        assert_eq!(all, [(&b"A"[..], &b"other"[..]), (b"B", b"later")]);
        assert_eq!(format!("{variables:?}"), r#"{"A", "B"}"#);
    }

    proptest! {
        #[test]
        fn the_bytes_are_counted_right(values in proptest::collection::vec((0..4_u8, 0..9_usize), 0..20)) {
            let mut variables = Variables::default();
            for (name, length) in values {
                variables.insert(&[b'A' + name], &vec![b'x'; length]).unwrap();
            }
            let sizes = variables.iter().map(|(name, value)| name.len() + value.len() + 2);
            prop_assert_eq!(variables.size, sizes.sum::<usize>());
        }

        #[test]
        fn a_variable_has_a_name_that_every_shell_takes(name in proptest::collection::vec(any::<u8>(), 0..6)) {
            if kind(&name) == Kind::Variable {
                prop_assert!(!name.is_empty() && !name[0].is_ascii_digit());
                prop_assert!(name.iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_'));
            }
        }
    }
}
