//! What commands run, on file systems of a few lines.

use super::build_info::tests::Binary;
use super::*;
use proptest::prelude::*;

/// Files by path. One that begins with `->` is a symbolic link.
type Tree<'a> = &'a [(&'a str, &'a [u8])];

fn recognised(tree: Tree<'_>, command: &[&str]) -> Program {
    let command = command.iter().map(|word| word.as_bytes().to_vec());
    recognise(command, |name, path| {
        let path = path.unwrap_or(b"/usr/bin:/bin");
        let find = |file: &[u8]| {
            let entry = tree.iter().find(|(path, _)| path.as_bytes() == file)?;
            let (real_path, bytes) = match entry.1.strip_prefix(b"->") {
                Some(target) => {
                    let real = tree.iter().find(|(path, _)| path.as_bytes() == target)?;
                    (target.to_vec(), real.1)
                }
                None => (file.to_vec(), entry.1),
            };
            let read = move |offset: u64, length: usize| -> Vec<u8> {
                bytes.iter().skip(offset as usize).take(length).copied().collect()
            };
            Some(Opened { path: file.to_vec(), real_path, read })
        };
        if name.contains(&b'/') {
            return find(name);
        }
        path.split(|byte| *byte == b':').find_map(|dir| find(&[dir, b"/", name].concat()))
    })
}

fn go(version: &str) -> Kind {
    Kind::Go(BuildInfo { version: version.to_owned(), ..BuildInfo::default() })
}

#[test]
fn a_program_is_known_by_its_own_file() {
    let app = Binary::new("go1.24.4").bytes();
    let tree: Tree<'_> = &[
        ("/app", &app),
        ("/bin/node", &app),
        ("/usr/bin/node", b"\x7fELF"),
        ("/usr/bin/java", b"->/opt/jdk/bin/java"),
        ("/opt/jdk/bin/java", b"\x7fELF"),
        ("/usr/bin/python3", b"->/usr/bin/python3.11"),
        ("/usr/bin/python3.11", b"\x7fELF"),
        ("/bin/ruby3.1", b""),
        ("/bin/dotnet", b""),
        ("/bin/erl", b"#!/bin/sh\n"),
        ("/bin/serve", b"->/usr/bin/node"),
        ("/bin/true", b"\x7fELF"),
        ("/bin/pythonic", b""),
        ("/bin/python3.13t", b""),
    ];
    for (name, kind, text) in [
        ("/app", go("go1.24.4"), Some("go 1.24.4")),
        ("java", Kind::Jvm, Some("java")),
        ("node", Kind::Node, Some("node")),
        ("serve", Kind::Node, Some("node")),
        // Whatever its name is.
        ("/bin/node", go("go1.24.4"), Some("go 1.24.4")),
        ("python3", Kind::Python("3.11".to_owned()), Some("python 3.11")),
        ("python3.13t", Kind::Python("3.13t".to_owned()), Some("python 3.13t")),
        ("ruby3.1", Kind::Ruby("3.1".to_owned()), Some("ruby 3.1")),
        ("dotnet", Kind::DotNet, Some("dotnet")),
        ("erl", Kind::Beam, Some("beam")),
        ("true", Kind::Other, None),
        ("pythonic", Kind::Other, None),
        ("absent", Kind::Other, None),
    ] {
        let program = recognised(tree, &[name, "argument"]);
        assert_eq!(program.kind, kind, "{name}");
        assert_eq!(program.kind.text().as_deref(), text, "{name}");
    }
    assert_eq!(recognised(tree, &["python3"]).file, b"/usr/bin/python3");
    assert_eq!(recognised(tree, &[]), Program::default());
}

#[test]
fn scripts_shells_and_env_are_followed() {
    let app = Binary::new("go1.25.3").bytes();
    let tree: Tree<'_> = &[
        ("/opt/app", &app),
        ("/bin/app", b"\x7fELF"),
        ("/usr/bin/node", b"\x7fELF"),
        ("/usr/bin/python3", b"\x7fELF"),
        ("/x.js", b"#!/usr/bin/env node\nconsole.log(1)\n"),
        ("/y.js", b"#! /usr/bin/env -S A=1 node --flag\n"),
        ("/z.py", b"#!/usr/bin/python3 -E"),
        ("/run", b"#!/opt/app -x\n"),
        ("/twice", b"#!/x.js\n"),
        ("/loop", b"#!/loop\n"),
        ("/empty", b"#!\n"),
        ("/script", b"#!/bin/sh\nexec /opt/app\n"),
    ];
    let kind = |command: &[&str]| recognised(tree, command).kind;
    assert_eq!(kind(&["/x.js"]), Kind::Node);
    assert_eq!(kind(&["/twice"]), Kind::Node);
    assert_eq!(kind(&["/z.py"]), Kind::Python("3".to_owned()));
    assert_eq!(kind(&["/run"]), go("go1.25.3"));
    assert_eq!(kind(&["env", "PATH=/opt", "app"]), go("go1.25.3"));
    assert_eq!(kind(&["env", "app"]), Kind::Other);
    assert_eq!(kind(&["sh", "-c", "exec /opt/app --flag 'a b'"]), go("go1.25.3"));
    assert_eq!(kind(&["sh", "-c", "PATH=/opt exec env app"]), go("go1.25.3"));
    for hidden in [&["/loop"][..], &["/empty"], &["/script"], &["sh", "-c", "/opt/app | tee x"]] {
        assert_eq!(kind(hidden), Kind::Other, "{hidden:?}");
    }
    let program = recognised(tree, &["env", "B=1", "B=2", "/y.js"]);
    assert_eq!(program.kind, Kind::Node);
    assert_eq!(program.file, b"/usr/bin/node");
    assert_eq!(program.value_of("A"), Some(OsStr::new("1")));
    assert_eq!(program.value_of("B"), Some(OsStr::new("2")));
    assert_eq!(program.value_of("C"), None);
}

proptest! {
    #[test]
    fn any_first_line_and_name_end(line: Vec<u8>, name: Vec<u8>, is_loop: bool) {
        let mut opened = 0;
        let line = if is_loop { b"#!/x y\n".to_vec() } else { [b"#!", &line[..]].concat() };
        recognise([name], |_, _| {
            opened += 1;
            let line = line.clone();
            let read = move |_: u64, length: usize| line.iter().take(length).copied().collect();
            Some(Opened { path: b"/x".to_vec(), real_path: b"/x".to_vec(), read })
        });
        prop_assert!(opened <= STEPS_MAX);
    }
}
