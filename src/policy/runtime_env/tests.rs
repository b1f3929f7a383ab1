//! Each runtime's rounding, and the variables that are left alone.

use super::*;
use proptest::prelude::*;

fn limit<T>(value: T) -> Option<Limit<T>> {
    Some(Limit { value, source: "/f".to_owned() })
}

fn value(exports: &[Export], name: &str) -> Option<String> {
    exports.iter().find(|export| export.name == name).map(|export| export.value.clone())
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

#[test]
fn every_limit_is_exported_with_the_rounding_of_each_runtime() {
    let exports = exports(&all_limits(), &Sizing::default(), |_| false);
    let found: Vec<_> =
        exports.iter().map(|e| (e.name, e.value.as_str(), e.why.as_str())).collect();
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
        ]
    );
}

#[test]
fn without_a_limit_there_is_nothing_to_say() {
    let unlimited = Limits { affinity: Some(8), ..Limits::default() };
    assert_eq!(exports(&unlimited, &Sizing::default(), |_| false), []);
}

#[test]
fn without_a_profile_nothing_is_exported() {
    let off = Sizing { profiles: Vec::new(), ..Sizing::default() };
    assert_eq!(exports(&all_limits(), &off, |_| false), []);
}

#[test]
fn a_profile_exports_its_own_variables_and_once() {
    let sizing = Sizing { profiles: vec![Profile::Python, Profile::Python], ..Sizing::default() };
    let names: Vec<_> =
        exports(&all_limits(), &sizing, |_| false).iter().map(|export| export.name).collect();
    assert_eq!(names, ["CASTOFF_CPUS", "CASTOFF_MEMORY_BYTES", "CASTOFF_PIDS", "PYTHON_CPU_COUNT"]);
}

#[test]
fn a_variable_that_is_set_is_never_touched() {
    let every = exports(&all_limits(), &Sizing::default(), |_| false);
    for set in &every {
        let others = exports(&all_limits(), &Sizing::default(), |name| name == set.name);
        let expected: Vec<_> =
            every.iter().filter(|export| export.name != set.name).cloned().collect();
        assert_eq!(others, expected);
    }
}

#[test]
fn automemlimit_keeps_gomemlimit_away() {
    let exports = exports(&all_limits(), &Sizing::default(), |name| name == "AUTOMEMLIMIT");
    assert_eq!(value(&exports, "GOMEMLIMIT"), None);
    assert_eq!(value(&exports, "GOMAXPROCS"), Some("2".to_owned()));
}

#[test]
fn roundings_of_each_runtime_and_forced_ones() {
    // cpus, affinity, rounding -> GOMAXPROCS, OMP_NUM_THREADS, PYTHON_CPU_COUNT
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
        let sizing = Sizing { rounding, ..Sizing::default() };
        let exports = exports(&limits, &sizing, |_| false);
        let threads = ["GOMAXPROCS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT"]
            .map(|name| value(&exports, name).unwrap());
        assert_eq!(threads, [go, omp, python].map(|n: u32| n.to_string()), "{cpus} {rounding:?}");
    }
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

#[test]
fn fractions_of_a_cpu_are_printed_exactly_and_shortest() {
    for (cpus, text) in [(1.5, "1.5"), (2.0, "2"), (0.5, "0.5"), (0.001, "0.001"), (0.1, "0.1")] {
        let limits = Limits { cpus: limit(cpus), ..Limits::default() };
        let exports = exports(&limits, &Sizing::default(), |_| false);
        assert_eq!(value(&exports, "CASTOFF_CPUS").as_deref(), Some(text));
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
            let sizing = Sizing { rounding, ..Sizing::default() };
            value(&exports(&limits, &sizing, |_| false), name).unwrap().parse::<u64>().unwrap()
        };
        for name in ["GOMAXPROCS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT"] {
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
