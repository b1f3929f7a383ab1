//! Each runtime's rounding, and the variables that are left alone.

mod go;
mod options;

use super::*;
use proptest::prelude::*;

fn limit<T>(value: T) -> Option<Limit<T>> {
    Some(Limit { value, source: "/f".to_owned() })
}

fn all_limits() -> Limits {
    Limits {
        cpus: limit(1.5),
        memory_bytes: limit(1 << 30),
        pids: limit(50),
        affinity: Some(8),
        ..Limits::default()
    }
}

fn sizing(profiles: &[Profile]) -> Sizing {
    Sizing { profiles: profiles.to_vec(), ..Sizing::default() }
}

/// With these entries of the environment and this command.
fn found(
    limits: &Limits,
    sizing: &Sizing,
    program: &Program,
    environment: &[&str],
    command: &[&str],
) -> Exports {
    let environment: Vec<_> =
        environment.iter().map(|entry| CString::new(*entry).unwrap()).collect();
    let command: Vec<_> = command.iter().map(OsString::from).collect();
    let surroundings = Surroundings { environment: &environment, command: &command };
    exports(limits, sizing, program, &surroundings)
}

/// For a program that is not known, in an empty environment.
fn plain(limits: &Limits, sizing: &Sizing) -> Exports {
    found(limits, sizing, &Program::default(), &[], &["app"])
}

impl Exports {
    fn value(&self, name: &str) -> Option<&str> {
        self.exports.iter().find(|export| export.name == name).map(|export| export.value.as_str())
    }

    fn names(&self) -> Vec<&'static str> {
        self.exports.iter().map(|export| export.name).collect()
    }

    fn why_not(&self, name: &str) -> Option<&str> {
        self.withheld.iter().find(|it| it.name == name).map(|it| it.why.as_str())
    }
}

#[test]
fn every_limit_is_exported_with_the_rounding_of_each_runtime() {
    let all = plain(&all_limits(), &sizing(&Profile::ALL));
    let found: Vec<_> =
        all.exports.iter().map(|e| (e.name, e.value.as_str(), e.why.as_str())).collect();
    assert_eq!(
        found,
        [
            ("CASTOFF_CPUS", "1.5", "limit from /f"),
            ("CASTOFF_MEMORY_BYTES", "1073741824", "limit from /f"),
            ("CASTOFF_PIDS", "50", "limit from /f"),
            ("GOMAXPROCS", "2", "ceil, at least 2; 1.5 CPUs from /f"),
            ("GOMEMLIMIT", "966367641", "0.9 of 1073741824 bytes from /f"),
            ("OMP_NUM_THREADS", "1", "floor, at least 1; 1.5 CPUs from /f"),
            ("PYTHON_CPU_COUNT", "2", "ceil, at least 1; 1.5 CPUs from /f"),
            (
                "JAVA_TOOL_OPTIONS",
                "-XX:MaxRAMPercentage=75.0",
                "75 % for the heap, 1073741824 bytes from /f"
            ),
            (
                "NODE_OPTIONS",
                "--max-old-space-size=768",
                "75 % for the heap, 1073741824 bytes from /f"
            ),
            ("WEB_CONCURRENCY", "2", "1 for each 512 MiB, 1073741824 bytes from /f"),
            ("JULIA_NUM_THREADS", "1", "floor, at least 1; 1.5 CPUs from /f"),
            ("MALLOC_ARENA_MAX", "2", "2 where memory is limited, 1073741824 bytes from /f"),
        ]
    );
    assert!(all.exports.iter().all(|export| export.change == Change::Added));
    assert_eq!(all.withheld, []);
    let default = plain(&all_limits(), &Sizing::default());
    assert_eq!(default.exports, all.exports[..7]);
}

#[test]
fn without_a_limit_there_is_nothing_to_say() {
    let unlimited = Limits { affinity: Some(8), ..Limits::default() };
    let environment = ["GOMAXPROCS=1", "NODE_OPTIONS="];
    let sizing = sizing(&Profile::ALL);
    let found = found(&unlimited, &sizing, &Program::default(), &environment, &["java"]);
    assert_eq!(found, Exports::default());
}

#[test]
fn each_variable_goes_by_a_limit_of_its_own_kind() {
    let all = sizing(&Profile::ALL);
    let cpus = Limits { memory_bytes: None, pids: None, ..all_limits() };
    assert_eq!(
        plain(&cpus, &all).names(),
        ["CASTOFF_CPUS", "GOMAXPROCS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT", "JULIA_NUM_THREADS"]
    );
    let memory = Limits { cpus: None, pids: None, ..all_limits() };
    assert_eq!(
        plain(&memory, &all).names(),
        [
            "CASTOFF_MEMORY_BYTES",
            "GOMEMLIMIT",
            "JAVA_TOOL_OPTIONS",
            "NODE_OPTIONS",
            "WEB_CONCURRENCY",
            "MALLOC_ARENA_MAX"
        ]
    );
    let pids = Limits { cpus: None, memory_bytes: None, ..all_limits() };
    assert_eq!(plain(&pids, &all).names(), ["CASTOFF_PIDS"]);
}

#[test]
fn every_reason_names_the_file_that_the_limit_is_from() {
    let many = Limits { memory_bytes: limit(64 << 30), ..all_limits() };
    let few = Limits { cpus: None, ..many.clone() };
    for limits in [all_limits(), many, few] {
        let found = plain(&limits, &sizing(&Profile::ALL));
        assert!(found.value("WEB_CONCURRENCY").is_some());
        for Export { name, why, .. } in &found.exports {
            let is_of_cpuset = limits.cpus.is_none() && *name == "WEB_CONCURRENCY";
            let source = if is_of_cpuset { "from affinity and cpuset" } else { "from /f" };
            assert!(why.ends_with(source), "{name}: {why}");
        }
    }
}

#[test]
fn without_a_profile_nothing_is_exported() {
    assert_eq!(plain(&all_limits(), &sizing(&[])), Exports::default());
}

#[test]
fn a_profile_exports_its_own_variables_and_once() {
    let twice = sizing(&[Profile::Python, Profile::Python]);
    assert_eq!(
        plain(&all_limits(), &twice).names(),
        ["CASTOFF_CPUS", "CASTOFF_MEMORY_BYTES", "CASTOFF_PIDS", "PYTHON_CPU_COUNT"]
    );
    let set = found(&all_limits(), &twice, &Program::default(), &["PYTHON_CPU_COUNT=1"], &[]);
    assert_eq!(set.withheld.len(), 1);
}

#[test]
fn a_variable_that_is_set_is_never_touched() {
    let sizing = sizing(&Profile::ALL);
    let every = plain(&all_limits(), &sizing);
    for set in &every.exports {
        let others: Vec<_> =
            every.exports.iter().filter(|export| export.name != set.name).cloned().collect();
        // To nothing, and to something that decides where options are appended.
        let value = if set.name.ends_with("OPTIONS") { "-Xmx1g --max-heap-size=9" } else { "9" };
        for value in ["", value] {
            let entry = format!("{}={value}", set.name);
            let found = found(&all_limits(), &sizing, &Program::default(), &[&entry], &["app"]);
            assert_eq!(found.exports, others, "{entry}");
            assert!(found.why_not(set.name).is_some(), "{entry}");
        }
        // By the command itself, which would win.
        let assignments = vec![format!("{}=x", set.name).into_bytes()];
        let program = Program { assignments, ..Program::default() };
        let found = found(&all_limits(), &sizing, &program, &[], &["app"]);
        assert_eq!(found.exports, others, "{}", set.name);
    }
}

#[test]
fn the_first_of_several_entries_is_the_one_that_counts() {
    let environment = [c"AB=0", c"A", c"A=1", c"A=2"].map(Into::into);
    let surroundings = Surroundings { environment: &environment, command: &[] };
    assert_eq!(surroundings.value_of("A"), Some(OsStr::new("1")));
    assert_eq!(surroundings.value_of("B"), None);
}

#[test]
fn the_program_matters_only_for_gomaxprocs() {
    let depend = |limits: &Limits, sizing: &Sizing, environment: &[CString]| {
        depend_on_program(limits, sizing, &Surroundings { environment, command: &[] })
    };
    let default = Sizing::default();
    assert!(depend(&all_limits(), &default, &[]));
    assert!(!depend(&all_limits(), &default, &[c"GOMAXPROCS=".into()]));
    assert!(!depend(&all_limits(), &sizing(&[Profile::Java]), &[]));
    assert!(!depend(&Limits { cpus: None, ..all_limits() }, &default, &[]));
}

#[test]
fn roundings_of_each_runtime_and_forced_ones() {
    // cpus, affinity, rounding -> GOMAXPROCS, OMP_NUM_THREADS, PYTHON_CPU_COUNT, JULIA_NUM_THREADS
    for (cpus, affinity, rounding, go, omp, python) in [
        (0.5, Some(4), Rounding::Auto, 2, 1, 1),
        (0.5, Some(1), Rounding::Auto, 1, 1, 1),
        (0.5, None, Rounding::Auto, 2, 1, 1),
        (1.0, Some(1), Rounding::Auto, 1, 1, 1),
        (2.0, Some(4), Rounding::Auto, 2, 2, 2),
        (2.7, Some(4), Rounding::Auto, 3, 2, 3),
        (2.7, Some(4), Rounding::Floor, 2, 2, 2),
        (2.7, Some(4), Rounding::Ceil, 3, 3, 3),
        (0.1, Some(4), Rounding::Floor, 1, 1, 1),
        (0.1, Some(4), Rounding::Ceil, 1, 1, 1),
    ] {
        let limits = Limits { cpus: limit(cpus), affinity, ..Limits::default() };
        let sizing = Sizing { rounding, ..sizing(&Profile::ALL) };
        let exports = plain(&limits, &sizing);
        let threads = ["GOMAXPROCS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT", "JULIA_NUM_THREADS"]
            .map(|name| exports.value(name).unwrap().to_owned());
        let expected = [go, omp, python, omp].map(|n: u32| n.to_string());
        assert_eq!(threads, expected, "{cpus} {rounding:?}");
    }
}

#[test]
fn workers_have_room_and_no_more_than_the_cpus_can_run() {
    const MIB: u64 = 1 << 20;
    for (mib, cpus, affinity, expected) in [
        (64, Some(4.0), Some(8), None),
        (512, Some(4.0), Some(8), None),
        (1023, Some(4.0), Some(8), None),
        (1024, Some(4.0), Some(8), Some("2")),
        (4096, Some(1.5), Some(8), Some("5")),
        (4096, Some(0.5), Some(8), Some("3")),
        (16_384, None, Some(2), Some("5")),
        (4096, None, None, Some("8")),
    ] {
        let limits = Limits {
            memory_bytes: limit(mib * MIB),
            cpus: cpus.and_then(limit),
            affinity,
            ..Limits::default()
        };
        let found = plain(&limits, &sizing(&[Profile::Web]));
        assert_eq!(found.value("WEB_CONCURRENCY"), expected, "{mib} {cpus:?}");
        assert_eq!(found.withheld.is_empty(), expected.is_some(), "{mib} {cpus:?}");
    }
}

#[test]
fn tunables_of_the_c_library_decide_on_arenas() {
    let with = |entry| {
        found(&all_limits(), &sizing(&[Profile::Malloc]), &Program::default(), &[entry], &[])
    };
    let decided = with("GLIBC_TUNABLES=a=1:glibc.malloc.arena_max=8");
    assert_eq!(decided.why_not("MALLOC_ARENA_MAX"), Some("GLIBC_TUNABLES decides"));
    assert_eq!(with("GLIBC_TUNABLES=glibc.malloc.check=1").value("MALLOC_ARENA_MAX"), Some("2"));
}

#[test]
fn fractions_of_a_cpu_are_printed_exactly_and_shortest() {
    for (cpus, text) in [(1.5, "1.5"), (2.0, "2"), (0.5, "0.5"), (0.001, "0.001"), (0.1, "0.1")] {
        let limits = Limits { cpus: limit(cpus), ..Limits::default() };
        assert_eq!(plain(&limits, &Sizing::default()).value("CASTOFF_CPUS"), Some(text));
    }
}

proptest! {
    #[test]
    fn threads_stay_next_to_the_limit(
        cpus in 0.001f64..9000.0,
        affinity in proptest::option::of(1u32..9000),
    ) {
        let limits = Limits { cpus: limit(cpus), affinity, ..Limits::default() };
        let number = |rounding, name| {
            let sizing = Sizing { rounding, ..sizing(&Profile::ALL) };
            plain(&limits, &sizing).value(name).unwrap().parse::<u64>().unwrap()
        };
        for name in ["GOMAXPROCS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT", "JULIA_NUM_THREADS"] {
            let (floor, ceil) = (number(Rounding::Floor, name), number(Rounding::Ceil, name));
            prop_assert!(floor >= 1 && ceil >= floor && ceil - floor <= 1);
            prop_assert!(floor as f64 <= cpus.max(1.0) && ceil as f64 >= cpus);
        }
        let go = number(Rounding::Auto, "GOMAXPROCS");
        prop_assert!(go >= 1 && go <= u64::from(affinity.unwrap_or(u32::MAX)));
        prop_assert_eq!(
            number(Rounding::Auto, "OMP_NUM_THREADS"),
            number(Rounding::Floor, "OMP_NUM_THREADS")
        );
        prop_assert_eq!(
            number(Rounding::Auto, "PYTHON_CPU_COUNT"),
            number(Rounding::Ceil, "PYTHON_CPU_COUNT")
        );
    }

    #[test]
    fn any_memory_gives_values_that_runtimes_start_with(
        bytes in 1u64..=u64::MAX,
        cpus in proptest::option::of(0.001f64..9000.0),
        affinity in proptest::option::of(1u32..9000),
    ) {
        let limits = Limits {
            cpus: cpus.and_then(limit), memory_bytes: limit(bytes), affinity, ..Limits::default()
        };
        let found = plain(&limits, &sizing(&Profile::ALL));
        if let Some(option) = found.value("NODE_OPTIONS") {
            let mib: u64 = option.strip_prefix("--max-old-space-size=").unwrap().parse().unwrap();
            prop_assert!(mib >= 32 && mib <= (bytes >> 20) * 3 / 4);
        }
        if let Some(workers) = found.value("WEB_CONCURRENCY") {
            prop_assert!(workers.parse::<u64>().unwrap() >= 2);
        }
        let names: std::collections::BTreeSet<_> = found.names().into_iter().collect();
        prop_assert_eq!(names.len(), found.exports.len());
    }

    #[test]
    fn any_environment_and_command_are_no_panic(
        values in proptest::collection::vec("[-A-Za-z:=\"'\\\\ _]{0,40}", 6),
        command in proptest::collection::vec("[-A-Za-z:=\"'\\\\ _]{0,40}", 0..4),
    ) {
        let names = [
            "JAVA_TOOL_OPTIONS", "NODE_OPTIONS", "GODEBUG", "JDK_JAVA_OPTIONS", "GLIBC_TUNABLES",
            "GOMEMLIMIT",
        ];
        let environment: Vec<_> =
            names.iter().zip(&values).map(|(name, value)| format!("{name}={value}")).collect();
        let environment: Vec<_> = environment.iter().map(String::as_str).collect();
        let command: Vec<_> = command.iter().map(String::as_str).collect();
        let sizing = sizing(&Profile::ALL);
        let found = found(&all_limits(), &sizing, &Program::default(), &environment, &command);
        // Each variable is told of, one way or the other.
        prop_assert_eq!(found.exports.len() + found.withheld.len(), 12);
        prop_assert_eq!(found.why_not("GOMEMLIMIT"), Some("is set already"));
    }
}
