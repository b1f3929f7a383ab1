//! What the words of a command run in their own place: through `env`, a shell
//! that is given one plain command, and programs that only change the user.
//!
//! Only what is certain counts: with any syntax of a shell beyond words, quotes
//! and assignments, and with options that are not known here, the program stays
//! unknown. No file is read.

/// The words of a command: bytes, as the kernel passes them.
pub(super) type Words = Vec<Vec<u8>>;

/// What the first word makes of the others.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is the program, as far as words tell.
    Itself,
    /// It becomes this command, with these variables (`NAME=VALUE`) set.
    Becomes { assignments: Words, words: Words },
    /// It runs what cannot be known.
    Hidden,
}

/// Characters that mean something to a shell or to `env -S` somewhere, whether
/// or not they do where they stand.
const SYNTAX: &[char] = &[
    '|', '&', ';', '<', '>', '(', ')', '$', '`', '\\', '*', '?', '[', ']', '{', '}', '~', '#', '!',
    '\n', '\r',
];

/// Programs that become the rest of their words, and how many come before it.
const TRANSPARENT: [(&[u8], usize); 4] =
    [(b"gosu", 1), (b"su-exec", 1), (b"setsid", 0), (b"nohup", 0)];

pub(super) fn step(words: &[Vec<u8>]) -> Step {
    let Some((program, arguments)) = words.split_first() else { return Step::Hidden };
    let becomes = match base_name(program) {
        b"env" => env(arguments),
        b"sh" | b"bash" | b"dash" | b"ash" => shell(arguments),
        b"busybox" => match arguments.first().map(|applet| base_name(applet)) {
            Some(b"sh" | b"ash" | b"env") => Some((Words::new(), arguments.to_vec())),
            _ => None,
        },
        name => match TRANSPARENT.iter().find(|(program, _)| *program == name) {
            Some((_, before)) => transparent(arguments, *before),
            None => return Step::Itself,
        },
    };
    match becomes {
        Some((assignments, words)) if !words.is_empty() => Step::Becomes { assignments, words },
        _ => Step::Hidden,
    }
}

/// The last part of a path.
pub(super) fn base_name(path: &[u8]) -> &[u8] {
    path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()
}

/// `env [--] [-S WORDS] [NAME=VALUE]... PROGRAM [ARGUMENT]...`, also where a line
/// with `#!` makes one word of it all.
fn env(arguments: &[Vec<u8>]) -> Option<(Words, Words)> {
    let mut words = arguments.to_vec();
    let first = words.first()?;
    let split = match first.strip_prefix(b"-S").or_else(|| first.strip_prefix(b"--split-string=")) {
        Some([]) => Some((words.get(1)?.clone(), 2)),
        Some(text) => Some((text.to_vec(), 1)),
        None if first == b"--split-string" => Some((words.get(1)?.clone(), 2)),
        None => None,
    };
    if let Some((text, count)) = split {
        words.splice(..count, plain_words(&text)?);
    }
    if words.first()? == b"--" {
        words.remove(0);
    }
    if words.first()?.starts_with(b"-") {
        return None;
    }
    let is_assignment = |word: &Vec<u8>| word.contains(&b'=');
    let rest = words.split_off(words.iter().take_while(|word| is_assignment(word)).count());
    Some((words, rest))
}

/// `sh -c "[NAME=VALUE]... [exec] PROGRAM [ARGUMENT]..."`. Without `exec` as well:
/// whether or not the shell stays, the program has its environment.
fn shell(arguments: &[Vec<u8>]) -> Option<(Words, Words)> {
    let mut arguments = arguments.iter();
    let mut is_command = false;
    let text = loop {
        let argument = arguments.next()?;
        match argument.strip_prefix(b"-") {
            Some(letters)
                if !letters.is_empty() && letters.iter().all(|c| b"ceuxo".contains(c)) =>
            {
                is_command |= letters.contains(&b'c');
                if letters.contains(&b'o') {
                    arguments.next()?;
                }
            }
            Some(b"-") => break arguments.next()?,
            Some(_) => return None,
            None => break argument,
        }
    };
    let mut words = plain_words(text).filter(|_| is_command)?;
    let rest = words.split_off(words.iter().take_while(|word| is_assignment(word)).count());
    match rest.split_first() {
        Some((exec, [program, ..])) if exec == b"exec" => {
            // `exec -a NAME`, or bash's `exec -c`, which clears the environment.
            let is_plain = !program.starts_with(b"-");
            is_plain.then(|| (words, rest.get(1..).unwrap_or_default().to_vec()))
        }
        _ => Some((words, rest)),
    }
}

fn transparent(arguments: &[Vec<u8>], before: usize) -> Option<(Words, Words)> {
    let is_option = |word: &Vec<u8>| word.starts_with(b"-");
    let own = arguments.get(..=before)?;
    (!own.iter().any(is_option))
        .then(|| (Words::new(), arguments.get(before..).unwrap_or_default().to_vec()))
}

/// Whether a shell would take it for a variable that is set.
fn is_assignment(word: &[u8]) -> bool {
    let name = word.split(|byte| *byte == b'=').next().unwrap_or_default();
    let is_letter = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    name.len() < word.len()
        && name.iter().all(is_letter)
        && name.first().is_some_and(|byte| !byte.is_ascii_digit())
}

/// The words of a text in which nothing but spaces and quotes has a meaning.
fn plain_words(text: &[u8]) -> Option<Words> {
    let text = std::str::from_utf8(text).ok()?.trim();
    if text.contains(SYNTAX) {
        return None;
    }
    let words = shell_words::split(text).ok()?;
    Some(words.into_iter().map(String::into_bytes).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn words(texts: &[&str]) -> Words {
        texts.iter().map(|text| text.as_bytes().to_vec()).collect()
    }

    #[track_caller]
    fn becomes(command: &[&str], assignments: &[&str], expected: &[&str]) {
        let expected = Step::Becomes { assignments: words(assignments), words: words(expected) };
        assert_eq!(step(&words(command)), expected, "{command:?}");
    }

    #[test]
    fn env_becomes_the_program_after_its_variables() {
        becomes(&["env", "app", "x"], &[], &["app", "x"]);
        becomes(&["/usr/bin/env", "A=1", "B=", "app", "C=3"], &["A=1", "B="], &["app", "C=3"]);
        becomes(&["env", "--", "A=1", "app"], &["A=1"], &["app"]);
        // The kernel makes one word of what follows the interpreter.
        becomes(
            &["env", "-S node --flag 'a b'", "/x.js"],
            &[],
            &["node", "--flag", "a b", "/x.js"],
        );
        becomes(&["env", "-SA=1 node", "/x.js"], &["A=1"], &["node", "/x.js"]);
        becomes(&["env", "-S", "node x", "y"], &[], &["node", "x", "y"]);
        becomes(&["env", "--split-string=node", "y"], &[], &["node", "y"]);
    }

    #[test]
    fn a_shell_becomes_its_one_plain_command() {
        for shell in ["sh", "/bin/sh", "bash", "dash", "ash"] {
            becomes(&[shell, "-c", "exec app 'a b' \"c\""], &[], &["app", "a b", "c"]);
        }
        becomes(&["sh", "-c", "app x\n"], &[], &["app", "x"]);
        becomes(&["sh", "-ec", "A=1 exec app"], &["A=1"], &["app"]);
        becomes(&["bash", "-o", "pipefail", "-c", "app", "ignored"], &[], &["app"]);
        becomes(&["bash", "-euo", "pipefail", "-c", "--", "app"], &[], &["app"]);
        becomes(&["busybox", "sh", "-c", "app"], &[], &["sh", "-c", "app"]);
        becomes(&["gosu", "nobody", "app", "-x"], &[], &["app", "-x"]);
        becomes(&["nohup", "app"], &[], &["app"]);
    }

    #[test]
    fn whatever_is_not_plain_hides_the_program() {
        for command in [
            &["sh", "-c", "app; app"][..],
            &["sh", "-c", "exec $APP"],
            &["sh", "-c", "app > log"],
            &["sh", "-c", "a && b"],
            &["sh", "-c", "exec -a x app"],
            &["sh", "-c", "cd /x\napp"],
            &["sh", "-c", "app '"],
            &["sh", "-c", ""],
            &["sh", "-c"],
            &["sh", "-lc", "app"],
            &["sh", "script"],
            &["sh"],
            &["env"],
            &["env", "A=1"],
            &["env", "-i", "app"],
            &["env", "-u", "A", "app"],
            &["env", "-S"],
            &["env", "-S ${X}"],
            &["busybox", "httpd"],
            &["gosu", "nobody"],
            &["gosu", "--version", "x"],
            &["setsid", "-w", "app"],
            &[],
        ] {
            assert_eq!(step(&words(command)), Step::Hidden, "{command:?}");
        }
        for command in [&["app"][..], &["/x/envoy", "-c", "x"], &["shell", "-c", "x"], &[""]] {
            assert_eq!(step(&words(command)), Step::Itself, "{command:?}");
        }
    }

    proptest! {
        #[test]
        fn any_words_are_a_step(
            first in "(/bin/)?(env|sh|busybox|gosu|app)?",
            others in proptest::collection::vec(any::<Vec<u8>>(), 0..4),
            options in proptest::collection::vec("(-[Sceuxo-]{0,3}|[A-Za-z =]{0,6})", 0..4),
        ) {
            let rest = options.into_iter().map(String::into_bytes).chain(others);
            let words: Words = [first.into_bytes()].into_iter().chain(rest).collect();
            if let Step::Becomes { words, .. } = step(&words) {
                prop_assert!(!words.is_empty());
            }
        }
    }
}
