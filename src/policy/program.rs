//! What a command runs: its words and pieces of files in, the language of the
//! program out.
//!
//! Followed are `#!` lines, `env`, and a shell that is given one plain command;
//! whatever else starts the program hides it, and it is then `Kind::Other`. A
//! wrong answer would size a program wrongly, so only what is certain counts.
//! Nothing here opens a file, and whatever a file holds costs a few small reads.

mod build_info;
mod words;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

pub(crate) use build_info::{BuildInfo, Pieces};
use words::{Step, Words, base_name, step};

/// As many times a command may become another one. The kernel follows five
/// lines with `#!` (`exec_binprm` of fs/exec.c).
const STEPS_MAX: usize = 8;
/// The head of an ELF file, and as much of a first line as the kernel reads.
const HEAD_BYTES: usize = 256;

/// What the child is, as far as it can be known before it is started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Program {
    pub(crate) kind: Kind,
    /// The file that was looked at last; empty when there was none.
    pub(crate) file: Vec<u8>,
    /// Variables that the command itself sets for the program, `NAME=VALUE`.
    pub(crate) assignments: Vec<Vec<u8>>,
}

/// In what the program is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Nothing of the below, or hidden.
    #[default]
    Other,
    Go(BuildInfo),
    Jvm,
    Node,
    /// The version that the file's name has, such as `3.11`, or nothing.
    Python(String),
    /// As `Python`.
    Ruby(String),
    DotNet,
    Beam,
}

impl Kind {
    /// For the log: the language, and its version where that is known.
    pub(crate) fn text(&self) -> Option<String> {
        let (name, version) = match self {
            Self::Other => return None,
            Self::Go(info) => return Some(info.version.replacen("go", "go ", 1)),
            Self::Jvm => ("java", ""),
            Self::Node => ("node", ""),
            Self::Python(version) => ("python", version.as_str()),
            Self::Ruby(version) => ("ruby", version.as_str()),
            Self::DotNet => ("dotnet", ""),
            Self::Beam => ("beam", ""),
        };
        Some(format!("{name} {version}").trim_end().to_owned())
    }

    /// By the last part of the path of an interpreter or virtual machine.
    fn by_name(name: &[u8]) -> Option<Self> {
        let version_after = |prefix: &str| {
            let rest = std::str::from_utf8(name.strip_prefix(prefix.as_bytes())?).ok()?;
            // `python3.13t` has no lock.
            let is_version = |c: char| c.is_ascii_digit() || c == '.' || c == 't';
            rest.chars().all(is_version).then(|| rest.to_owned())
        };
        Some(match name {
            b"java" => Self::Jvm,
            b"node" | b"nodejs" => Self::Node,
            b"dotnet" => Self::DotNet,
            b"beam.smp" | b"erl" | b"erlexec" | b"elixir" | b"iex" => Self::Beam,
            _ => match (version_after("python"), version_after("ruby")) {
                (Some(version), _) => Self::Python(version),
                (_, Some(version)) => Self::Ruby(version),
                _ => return None,
            },
        })
    }
}

impl Program {
    /// The value that the command itself gives a variable; the last one holds.
    pub(crate) fn value_of(&self, name: &str) -> Option<&OsStr> {
        value_of(&self.assignments, name).map(OsStr::from_bytes)
    }
}

fn value_of<'a>(assignments: &'a [Vec<u8>], name: &str) -> Option<&'a [u8]> {
    let value = |entry: &'a Vec<u8>| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=");
    assignments.iter().rev().find_map(value)
}

/// A program's file.
pub(crate) struct Opened<Read> {
    /// Where it was found.
    pub(crate) path: Vec<u8>,
    /// Where it is, all symbolic links followed.
    pub(crate) real_path: Vec<u8>,
    pub(crate) read: Read,
}

/// Finds out what the command runs. `open` gives the file that `execvp` would
/// take for a name, with the PATH that the command itself has set, if any.
pub(crate) fn recognise<Read: Pieces>(
    command: impl IntoIterator<Item = Vec<u8>>,
    mut open: impl FnMut(&[u8], Option<&[u8]>) -> Option<Opened<Read>>,
) -> Program {
    let mut words: Words = command.into_iter().collect();
    let mut program = Program::default();
    for _ in 0..STEPS_MAX {
        match step(&words) {
            Step::Itself => {}
            Step::Hidden => break,
            Step::Becomes { assignments, words: next } => {
                program.assignments.extend(assignments);
                words = next;
                continue;
            }
        }
        let Some(name) = words.first() else { break };
        let Some(mut opened) = open(name, value_of(&program.assignments, "PATH")) else { break };
        let head = (opened.read)(0, HEAD_BYTES);
        let by_name =
            Kind::by_name(base_name(&opened.real_path)).or_else(|| Kind::by_name(base_name(name)));
        program.file = opened.path;
        if let Some(info) = build_info::build_info(&head, &mut opened.read) {
            // Before the name, which anybody may give to a program.
            program.kind = Kind::Go(info);
            break;
        }
        match (by_name, interpreter(&head)) {
            (Some(kind), _) => {
                program.kind = kind;
                break;
            }
            (None, Some(interpreter)) => {
                let script = [program.file.clone()];
                let arguments = words.into_iter().skip(1);
                words = interpreter.into_iter().chain(script).chain(arguments).collect();
            }
            (None, None) => break,
        }
    }
    program
}

/// The interpreter that a first line `#!` names and its argument, which is all
/// the rest of the line (`man 2 execve`).
fn interpreter(head: &[u8]) -> Option<Words> {
    let line = head.strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?.trim_ascii();
    let name = line.split(u8::is_ascii_whitespace).next().filter(|name| !name.is_empty())?;
    let argument = line.get(name.len()..)?.trim_ascii_start();
    let words = [name, argument].into_iter().filter(|word| !word.is_empty());
    Some(words.map(<[u8]>::to_vec).collect())
}

#[cfg(test)]
mod tests;
