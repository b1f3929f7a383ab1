//! What programs are told of their limits, by what they are: Go programs made by
//! hand from a child of these tests, and strings of options.

use std::fs;

use serde_json::Value;

use crate::limits::{environment, on_fixture, printed};
use crate::support::{Castoff, Ended, Place, Running, Scratch, example};

/// The child that prints its environment, with the build information of a Go
/// program in front of new section headers at its end. The kernel reads neither.
fn go_program(version: &str, settings: &str) -> Vec<u8> {
    let mut file = fs::read(example("print_env")).expect("an example");
    assert!(file.starts_with(b"\x7fELF\x02\x01"), "64 bits, little-endian");
    let text = format!("{0}path\tapp\nbuild\t-compiler=gc\n{settings}{0}", "0123456789abcdef");
    let mut info = b"\xff Go buildinf:\x08\x02".to_vec();
    info.resize(32, 0);
    for string in [version, &text] {
        // Below 128 bytes the length is one byte.
        info.push(u8::try_from(string.len()).ok().filter(|n| *n < 128).expect("short"));
        info.extend(string.as_bytes());
    }
    let info_at = file.len().next_multiple_of(16);
    file.resize(info_at, 0);
    file.extend(&info);
    let names_at = file.len();
    let names = b"\0.go.buildinfo\0.shstrtab\0";
    file.extend(names);
    let sections_at = file.len();
    for (name, at, length) in [(0, 0, 0), (1, info_at, info.len()), (15, names_at, names.len())] {
        let mut section = u32::to_le_bytes(name).to_vec();
        section.resize(24, 0);
        section.extend((at as u64).to_le_bytes());
        section.extend((length as u64).to_le_bytes());
        section.resize(64, 0);
        file.extend(section);
    }
    file[40..48].copy_from_slice(&(sections_at as u64).to_le_bytes());
    file[58..64].copy_from_slice(&[64, 0, 3, 0, 2, 0]);
    file
}

fn why_of(castoff: &Running, event: &str, name: &str) -> Option<String> {
    let events = castoff.log().events();
    let found = events.iter().find(|it| it["event"] == event && it["name"] == name)?;
    found["why"].as_str().map(str::to_owned)
}

#[test]
fn a_go_program_is_told_what_it_does_not_find_out_itself() {
    let off = "build\tDefaultGODEBUG=containermaxprocs=0\n";
    let scratch = Scratch::new();
    for (nth, (version, settings, fixture, why)) in [
        ("go1.24.4", "", "v2_half_cpu", Ok("from /sys/fs/cgroup/cpu.max")),
        ("go1.25.3", "", "v2_half_cpu", Err("Go 1.25.3 reads the limit itself")),
        ("devel go1.27-4b5c Mon", "", "v2_half_cpu", Err("Go 1.27-4b5c reads the limit itself")),
        ("go1.25.3", off, "v2_half_cpu", Ok("; containermaxprocs=0")),
        ("go1.26.1", "", "v2_pod_lower_than_container", Ok("; Go 1.26.1 reads its own group only")),
        ("go1.25.3", "", "v1_one_and_a_half_cpus", Ok("; Go 1.25.3 may not find v1 groups")),
        ("go1.26", "", "v1_one_and_a_half_cpus", Err("Go 1.26 reads the limit itself")),
    ]
    .into_iter()
    .enumerate()
    {
        let program = scratch.binary(&format!("app{nth}"), &go_program(version, settings));
        let (environment, castoff) = printed(on_fixture(fixture).child::<&str>(&program, []));
        assert_eq!(environment.contains_key("GOMAXPROCS"), why.is_ok(), "{version} {fixture}");
        assert!(environment.contains_key("OMP_NUM_THREADS"), "{version} {fixture}");
        let has_memory = environment.contains_key("CASTOFF_MEMORY_BYTES");
        assert_eq!(environment.contains_key("GOMEMLIMIT"), has_memory, "{version} {fixture}");
        let told = match why {
            Ok(_) => why_of(&castoff, "env_exported", "GOMAXPROCS"),
            Err(_) => why_of(&castoff, "env_withheld", "GOMAXPROCS"),
        };
        let (Ok(end) | Err(end)) = why;
        let told = told.expect("a reason");
        assert!(told.ends_with(end), "{version} {fixture}: {told}");
        let recognised = castoff.log().wait_for_event("program_recognised");
        assert_eq!(recognised["file"], program.as_str());
    }
}

#[test]
fn the_program_is_found_behind_scripts_shells_and_env() {
    let scratch = Scratch::new();
    let program = scratch.binary("app", &go_program("go1.25.3", ""));
    let script = scratch.program("script", "755", &format!("#!/usr/bin/env -S A=1 {program} -x\n"));
    let directory = scratch.path("");
    let link = scratch.path("link");
    std::os::unix::fs::symlink("app", &link).expect("a link");
    let in_path = format!("PATH={directory}:/usr/bin:/bin");
    for command in [
        &[&*program][..],
        &[&link],
        &[&script],
        &["env", "A=1", &program],
        &["env", &in_path, "app"],
        &["/bin/sh", "-c", &format!("exec '{program}' \"a b\"")],
        &["/bin/sh", "-c", &format!("A=1 {program} a b")],
    ] {
        let castoff = on_fixture("v2_half_cpu").child(command[0], &command[1..]);
        let (environment, castoff) = printed(castoff);
        let recognised = castoff.log().wait_for_event("program_recognised");
        assert_eq!(recognised["program"], "go 1.25.3", "{command:?}");
        assert_eq!(environment.get("GOMAXPROCS"), None, "{command:?}");
    }
    // What hides it leaves the variables that are safe for all.
    for command in
        [&["/bin/sh", "-c", &*format!("true && exec {program}")][..], &["env", "-u", "B", &program]]
    {
        let castoff = on_fixture("v2_half_cpu").child(command[0], &command[1..]);
        let (environment, castoff) = printed(castoff);
        assert_eq!(environment.get("GOMAXPROCS").map(String::as_str), Some("2"), "{command:?}");
        let is_recognised = |event: &Value| event["event"] == "program_recognised";
        assert!(!castoff.log().events().iter().any(is_recognised), "{command:?}");
    }
}

#[test]
fn a_program_is_looked_at_only_where_it_matters() {
    let scratch = Scratch::new();
    let program = scratch.binary("app", &go_program("go1.25.3", ""));
    for castoff in [
        on_fixture("v2_unlimited"),
        on_fixture("v1_hidden_ancestor"),
        on_fixture("v2_half_cpu").env("GOMAXPROCS", "3"),
        on_fixture("v2_half_cpu").env("CASTOFF_SIZING", "python"),
        on_fixture("v2_half_cpu").env("CASTOFF_SIZING", "off"),
    ] {
        let (_, castoff) = printed(castoff.child::<&str>(&program, []));
        let is_recognised = |event: &Value| event["event"] == "program_recognised";
        assert!(!castoff.log().events().iter().any(is_recognised));
    }
}

#[test]
fn a_program_that_cannot_run_ends_as_without_a_look_at_it() {
    let scratch = Scratch::new();
    let fifo = scratch.path("fifo");
    nix::unistd::mkfifo(&*fifo, nix::sys::stat::Mode::from_bits_truncate(0o777)).expect("a fifo");
    let looping = scratch.program("loop", "755", &format!("#!{}\n", scratch.path("loop")));
    let broken = scratch.binary("broken", b"\x7fELF\x02\x01\0\0\xff\xff\xff\xff");
    for (program, code) in [
        (&*fifo, 126),
        (&*scratch.path(""), 126),
        (&*looping, 126),
        (&*broken, 126),
        ("/absent", 127),
    ] {
        let mut castoff = on_fixture("v2_half_cpu").child::<&str>(program, []).run();
        assert_eq!(castoff.wait(), Ended::Code(code), "{program}");
        assert!(why_of(&castoff, "env_exported", "GOMAXPROCS").is_some(), "{program}");
    }
}

fn opted_in() -> Castoff {
    on_fixture("v2_pod_lower_than_container")
        .env("CASTOFF_SIZING", "default,java,node,web,julia,malloc")
}

#[test]
fn the_profiles_that_are_asked_for_export_their_variables() {
    let (environment, _) = environment(opted_in());
    for (name, value) in [
        ("GOMAXPROCS", "2"),
        ("JAVA_TOOL_OPTIONS", "-XX:MaxRAMPercentage=75.0"),
        ("NODE_OPTIONS", "--max-old-space-size=384"),
        ("JULIA_NUM_THREADS", "1"),
        ("MALLOC_ARENA_MAX", "2"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    // There is room for one worker, which is what the programs begin with.
    assert_eq!(environment.get("WEB_CONCURRENCY"), None);
}

#[test]
fn options_are_appended_and_what_was_there_is_not_logged() {
    let (environment, castoff) = environment(
        opted_in()
            .env("JAVA_TOOL_OPTIONS", "-Dpassword=verysecret")
            .env("NODE_OPTIONS", "--no-warnings"),
    );
    for (name, value) in [
        ("JAVA_TOOL_OPTIONS", "-Dpassword=verysecret -XX:MaxRAMPercentage=75.0"),
        ("NODE_OPTIONS", "--no-warnings --max-old-space-size=384"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    let log = castoff.log().all();
    assert!(log.iter().any(|line| line.contains("-XX:MaxRAMPercentage=75.0")), "{log:?}");
    assert!(!log.iter().any(|line| line.contains("verysecret")), "{log:?}");
}

#[test]
fn options_that_decide_and_ones_set_to_nothing_stay_as_they_are() {
    for (name, value, why) in [
        ("JAVA_TOOL_OPTIONS", "-Xmx64m", "JAVA_TOOL_OPTIONS decides"),
        ("JAVA_TOOL_OPTIONS", "", "is set to nothing"),
        ("NODE_OPTIONS", "--max_old_space_size=100", "NODE_OPTIONS decides"),
        ("NODE_OPTIONS", "", "is set to nothing"),
    ] {
        let (environment, castoff) = environment(opted_in().env(name, value));
        assert_eq!(environment.get(name).map(String::as_str), Some(value));
        assert_eq!(why_of(&castoff, "env_withheld", name).as_deref(), Some(why));
    }
    let castoff = opted_in().child(&example("print_env"), ["-Xmx64m", "--max-old-space-size=9"]);
    let (environment, _) = printed(castoff);
    for name in ["JAVA_TOOL_OPTIONS", "NODE_OPTIONS"] {
        assert_eq!(environment.get(name), None);
    }
}

#[test]
fn as_process_1_it_is_the_same() {
    let scratch = Scratch::new();
    let program = scratch.binary("app", &go_program("go1.25.3", ""));
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/cgroup/v2_half_cpu");
    let castoff = Castoff::new(Place::Pid1)
        .env("CASTOFF_CGROUP_ROOT", format!("{root}/sys"))
        .env("CASTOFF_PROC_ROOT", format!("{root}/proc"))
        .env("CASTOFF_SIZING", "default,node")
        .env("NODE_OPTIONS", "--no-warnings");
    let (environment, _) = printed(castoff.child::<&str>(&program, []));
    assert_eq!(environment.get("GOMAXPROCS"), None);
    let options = environment.get("NODE_OPTIONS").map(String::as_str);
    assert_eq!(options, Some("--no-warnings --max-old-space-size=48"));
}
