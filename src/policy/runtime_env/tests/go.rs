//! Which Go programs read the CPU limit themselves.

use super::*;
use crate::policy::program::{BuildInfo, Kind};
use crate::policy::runtime_env::go::gomemlimit;

fn program(version: &str, default_godebug: &str) -> Program {
    let info = BuildInfo {
        version: version.to_owned(),
        default_godebug: default_godebug.as_bytes().to_vec(),
    };
    Program { kind: Kind::Go(info), ..Program::default() }
}

fn sized(limits: &Limits, program: &Program, environment: &[&str]) -> Exports {
    found(limits, &Sizing::default(), program, environment, &["app"])
}

#[test]
fn a_go_that_reads_the_limit_keeps_its_own_gomaxprocs() {
    for version in ["go1.25", "go1.25rc1", "go1.25.3", "go1.26.1", "go1.27-4b5c6d7", "go2.0"] {
        let found = sized(&all_limits(), &program(version, ""), &[]);
        assert_eq!(found.value("GOMAXPROCS"), None, "{version}");
        let why = format!("Go {} reads the limit itself", &version[2..]);
        assert_eq!(found.why_not("GOMAXPROCS"), Some(&*why));
        assert_eq!(found.value("GOMEMLIMIT"), Some("966367641"), "{version}");
    }
    for version in ["go1.24.9", "go1.9", "+5a5c9d1", "go", "go0.99"] {
        let found = sized(&all_limits(), &program(version, ""), &[]);
        assert_eq!(found.value("GOMAXPROCS"), Some("2"), "{version}");
    }
}

#[test]
fn a_go_whose_reader_is_off_is_told() {
    for (default, godebug, is_off) in [
        ("containermaxprocs=0", None, true),
        ("asynctimerchan=1,containermaxprocs=0,updatemaxprocs=0", None, true),
        ("containermaxprocs=0", Some("containermaxprocs=1"), false),
        ("containermaxprocs=0", Some("netdns=go"), true),
        ("", Some("containermaxprocs=0"), true),
        ("", Some("containermaxprocs=1,containermaxprocs=0"), true),
        ("", Some("containermaxprocs=0,containermaxprocs=2"), false),
        ("", Some("containermaxprocs=off"), false),
        ("", Some("containermaxprocs=+0"), false),
        ("", Some("xcontainermaxprocs=0"), false),
        // The limit is read once and not followed: still the right one.
        ("updatemaxprocs=0", None, false),
        ("", Some("updatemaxprocs=0"), false),
    ] {
        let entry = godebug.map(|value| format!("GODEBUG={value}"));
        let environment: Vec<_> = entry.as_deref().into_iter().collect();
        let found = sized(&all_limits(), &program("go1.25.3", default), &environment);
        assert_eq!(found.value("GOMAXPROCS").is_some(), is_off, "{default} {godebug:?}");
        if is_off {
            let export = found.exports.iter().find(|it| it.name == "GOMAXPROCS").unwrap();
            let why = "ceil, at least 2; 1.5 CPUs from /f; containermaxprocs=0";
            assert_eq!(export.why, why);
        }
        // What the command itself says comes before the environment.
        let assignments = entry.into_iter().map(String::into_bytes).collect();
        let program = Program { assignments, ..program("go1.25.3", default) };
        let found = sized(&all_limits(), &program, &["GODEBUG=containermaxprocs=1"]);
        let is_told = is_off && godebug.is_some();
        assert_eq!(found.value("GOMAXPROCS").is_some(), is_told, "{default} {godebug:?}");
    }
}

#[test]
fn a_go_that_would_see_less_than_holds_is_told() {
    let inherited = Limits { cpus_are_inherited: true, ..all_limits() };
    let found = sized(&inherited, &program("go1.26.1", ""), &[]);
    assert_eq!(found.value("GOMAXPROCS"), Some("2"));
    let why = &found.exports.iter().find(|it| it.name == "GOMAXPROCS").unwrap().why;
    assert!(why.ends_with("; Go 1.26.1 reads its own group only"), "{why}");

    let source = "/sys/fs/cgroup/cpu/cpu.cfs_quota_us".to_owned();
    let v1 = Limits { cpus: Some(Limit { value: 3.0, source }), ..all_limits() };
    assert_eq!(sized(&v1, &program("go1.25.4", ""), &[]).value("GOMAXPROCS"), Some("3"));
    assert_eq!(sized(&v1, &program("go1.26", ""), &[]).value("GOMAXPROCS"), None);

    let affinity = Limits {
        cpus: Some(Limit { value: 2.0, source: "affinity".to_owned() }),
        affinity: Some(2),
        ..all_limits()
    };
    assert_eq!(sized(&affinity, &program("go1.25.4", ""), &[]).value("GOMAXPROCS"), None);
}

#[test]
fn what_is_set_is_the_reason_before_any_other() {
    let found = sized(&all_limits(), &program("go1.25.3", ""), &["GOMAXPROCS=3"]);
    assert_eq!(found.why_not("GOMAXPROCS"), Some("is set already"));
}

#[test]
fn automemlimit_keeps_gomemlimit_away() {
    let found = sized(&all_limits(), &Program::default(), &["AUTOMEMLIMIT=0.8"]);
    assert_eq!(found.why_not("GOMEMLIMIT"), Some("AUTOMEMLIMIT is set"));
    assert_eq!(found.value("GOMAXPROCS"), Some("2"));
}

#[test]
fn the_share_of_memory_is_whole_bytes_that_go_can_read() {
    for (memory, ratio, expected) in [
        (1 << 30, 0.9, 966_367_641),
        (1 << 30, 0.5, 536_870_912),
        (u64::MAX, 0.9, i64::MAX as u64),
        (u64::MAX, 0.45, 8_301_034_833_169_298_432),
        (1, 0.5, 1),
    ] {
        let memory = limit(memory).unwrap();
        assert_eq!(gomemlimit(&memory, ratio).0, expected, "{} {ratio}", memory.value);
    }
}

proptest! {
    #[test]
    fn the_share_of_memory_is_never_more_than_the_limit(
        bytes in 1u64..=u64::MAX,
        ratio in 0.01f64..=1.0,
    ) {
        let share = gomemlimit(&limit(bytes).unwrap(), ratio).0;
        // Above 2^53 a float is not exact to the byte.
        prop_assert!(share >= 1 && share <= bytes.saturating_add(bytes >> 52));
        prop_assert!(share <= i64::MAX as u64);
    }
}
