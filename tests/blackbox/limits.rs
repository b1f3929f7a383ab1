//! What the child is told of its limits: from the file systems of other
//! machines, as the fixtures have them, and from real groups of this one.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::json;

use crate::support::{Castoff, Ended, Group, Place, Running, example};

/// castoff on a fixture, in front of a child that prints its environment.
pub(crate) fn on_fixture(name: &str) -> Castoff {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup").join(name);
    assert!(root.exists(), "no fixture {name}");
    Castoff::new(Place::Subreaper)
        .env("CASTOFF_CGROUP_ROOT", root.join("sys"))
        .env("CASTOFF_PROC_ROOT", root.join("proc"))
}

/// Runs it, and returns the environment of its child.
#[track_caller]
pub(crate) fn environment(castoff: Castoff) -> (BTreeMap<String, String>, Running) {
    printed(castoff.child::<&str>(&example("print_env"), []))
}

/// The same with a child that is given already.
#[track_caller]
pub(crate) fn printed(castoff: Castoff) -> (BTreeMap<String, String>, Running) {
    let mut castoff = castoff.run();
    assert_eq!(castoff.wait(), Ended::Code(0));
    let lines = castoff.stdout().all();
    let entries = lines.iter().filter_map(|line| line.strip_prefix("env\t")?.split_once('='));
    (entries.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(), castoff)
}

/// What castoff has added: all but what the test itself has set.
#[track_caller]
fn exports(castoff: Castoff) -> Vec<String> {
    let (environment, _) = environment(castoff);
    let given = ["PATH", "CASTOFF_HEALTH_LISTEN", "CASTOFF_CGROUP_ROOT", "CASTOFF_PROC_ROOT"];
    environment
        .iter()
        .filter(|(name, _)| !given.contains(&name.as_str()))
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[test]
fn the_child_gets_what_its_cgroup_allows() {
    for (fixture, expected) in [
        (
            "v2_half_cpu",
            &[
                "CASTOFF_CPUS=0.5",
                "CASTOFF_MEMORY_BYTES=67108864",
                "CASTOFF_PIDS=50",
                "GOMAXPROCS=2",
                "GOMEMLIMIT=60397977",
                "OMP_NUM_THREADS=1",
                "PYTHON_CPU_COUNT=1",
            ][..],
        ),
        // The Pod allows less than the container's own group says.
        (
            "v2_pod_lower_than_container",
            &[
                "CASTOFF_CPUS=1.5",
                "CASTOFF_MEMORY_BYTES=536870912",
                "CASTOFF_PIDS=100",
                "GOMAXPROCS=2",
                "GOMEMLIMIT=483183820",
                "OMP_NUM_THREADS=1",
                "PYTHON_CPU_COUNT=2",
            ],
        ),
        (
            "v1_one_and_a_half_cpus",
            &["CASTOFF_CPUS=1.5", "GOMAXPROCS=2", "OMP_NUM_THREADS=1", "PYTHON_CPU_COUNT=2"],
        ),
        ("v1_hidden_ancestor", &["CASTOFF_MEMORY_BYTES=67108864", "GOMEMLIMIT=60397977"]),
        (
            "hybrid_memory_in_v2",
            &[
                "CASTOFF_CPUS=2.5",
                "CASTOFF_MEMORY_BYTES=67108864",
                "CASTOFF_PIDS=40",
                "GOMAXPROCS=3",
                "GOMEMLIMIT=60397977",
                "OMP_NUM_THREADS=2",
                "PYTHON_CPU_COUNT=3",
            ],
        ),
    ] {
        assert_eq!(exports(on_fixture(fixture)), expected, "{fixture}");
    }
}

#[test]
fn what_was_found_and_where_is_in_the_log() {
    let (_, castoff) = environment(on_fixture("v2_pod_lower_than_container"));
    let found = castoff.log().wait_for_event("limits_detected");
    let pod = "/sys/fs/cgroup/kubepods.slice/pod7.slice";
    for (field, value) in [
        ("cgroup", json!("v2")),
        ("cpus", json!(1.5)),
        ("memory_bytes", json!(536_870_912)),
        ("pids", json!(100)),
        ("cpu_source", json!(format!("{pod}/cpu.max"))),
        ("memory_source", json!(format!("{pod}/memory.max"))),
    ] {
        assert_eq!(found[field], value, "{field}");
    }
    let events = castoff.log().events();
    let exported = events.iter().filter(|event| event["event"] == "env_exported");
    let exported: Vec<_> = exported.map(|event| event["name"].as_str()).collect();
    assert_eq!(exported.len(), 7, "{exported:?}");
    let go = events.iter().find(|event| event["name"] == "GOMAXPROCS").expect("GOMAXPROCS");
    assert_eq!(go["why"], format!("ceil, at least 2; 1.5 CPUs from {pod}/cpu.max"));
}

#[test]
fn what_is_set_is_never_touched() {
    let castoff = on_fixture("v2_half_cpu")
        .env("GOMAXPROCS", "64")
        .env("OMP_NUM_THREADS", "")
        .env("CASTOFF_CPUS", "7")
        .env("GOMEMLIMIT", "off");
    let (environment, _) = environment(castoff);
    for (name, value) in [
        ("GOMAXPROCS", "64"),
        ("OMP_NUM_THREADS", ""),
        ("CASTOFF_CPUS", "7"),
        ("GOMEMLIMIT", "off"),
        ("PYTHON_CPU_COUNT", "1"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn sizing_can_be_turned_off_or_narrowed() {
    let sized = |sizing: &str| {
        let (environment, _) = environment(on_fixture("v2_half_cpu").env("CASTOFF_SIZING", sizing));
        let settings = ["PATH", "CASTOFF_HEALTH_LISTEN", "CASTOFF_SIZING"];
        let names = environment
            .into_keys()
            .filter(|name| !name.ends_with("_ROOT") && !settings.contains(&name.as_str()));
        names.collect::<Vec<_>>().join(" ")
    };
    let own = "CASTOFF_CPUS CASTOFF_MEMORY_BYTES CASTOFF_PIDS";
    assert_eq!(sized("off"), "");
    assert_eq!(sized("go"), format!("{own} GOMAXPROCS GOMEMLIMIT"));
    assert_eq!(sized("python,openmp"), format!("{own} OMP_NUM_THREADS PYTHON_CPU_COUNT"));
    assert_eq!(sized(""), sized("default"));
}

#[test]
fn rounding_and_ratio_are_settings() {
    let with = |name: &str, value: &str| {
        environment(on_fixture("v2_pod_lower_than_container").env(name, value)).0
    };
    let threads = |environment: &BTreeMap<String, String>| {
        ["GOMAXPROCS", "OMP_NUM_THREADS", "PYTHON_CPU_COUNT"].map(|name| environment[name].clone())
    };
    assert_eq!(threads(&with("CASTOFF_CPU_ROUNDING", "floor")), ["1", "1", "1"]);
    assert_eq!(threads(&with("CASTOFF_CPU_ROUNDING", "ceil")), ["2", "2", "2"]);
    assert_eq!(with("CASTOFF_MEMORY_RATIO", "0.5")["GOMEMLIMIT"], "268435456");
    assert_eq!(with("CASTOFF_MEMORY_RATIO", "1")["GOMEMLIMIT"], "536870912");
}

#[test]
fn without_a_limit_nothing_is_exported_and_one_line_says_so() {
    for fixture in ["v2_unlimited", "v1_unlimited"] {
        assert_eq!(exports(on_fixture(fixture)), [""; 0], "{fixture}");
        let (_, castoff) = environment(on_fixture(fixture));
        let events = castoff.log().events();
        let told: Vec<_> = events
            .iter()
            .filter(|event| {
                let name = event["event"].as_str().unwrap_or_default();
                name.starts_with("limits") || name.starts_with("env")
            })
            .map(|event| event["msg"].as_str())
            .collect();
        assert_eq!(told, [Some("no limits detected, nothing to export")], "{fixture}");
    }
}

#[test]
fn what_cannot_be_understood_is_one_warning_and_the_child_runs() {
    let (_, castoff) = environment(on_fixture("v2_quota_text"));
    let warning = castoff.log().wait_for_event("limits_warning");
    assert_eq!(warning["level"], "WARN");
    let cause = warning["cause"].as_str().expect("text");
    assert!(cause.starts_with("cannot use /sys/fs/cgroup/cpu.max \"asdf 100000\""), "{cause}");
    let events = castoff.log().events();
    assert_eq!(events.iter().filter(|event| event["level"] == "WARN").count(), 1);
    // No limits at all: neither files nor a place for them.
    let (environment, _) =
        environment(on_fixture("v2_unlimited").env("CASTOFF_PROC_ROOT", "/nonexistent"));
    assert!(!environment.contains_key("GOMAXPROCS"));
}

#[test]
fn the_real_groups_of_this_machine_are_found() {
    let mut castoff = Castoff::new(Place::Pid1);
    let mut expected = BTreeMap::new();
    let mut groups = Vec::new();
    for (controller, limits, exports) in [
        (
            "cpu",
            &[("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "75000")][..],
            &[("CASTOFF_CPUS", "1.5")][..],
        ),
        ("pids", &[("pids.max", "77")], &[("CASTOFF_PIDS", "77")]),
        (
            "memory",
            &[("memory.limit_in_bytes", "268435456")],
            &[("CASTOFF_MEMORY_BYTES", "268435456"), ("GOMEMLIMIT", "241591910")],
        ),
    ] {
        let Some(group) = Group::new(controller) else { continue };
        limits.iter().for_each(|(file, value)| group.set(file, value));
        castoff = group.enter(castoff);
        expected.extend(exports.iter().copied());
        groups.push(group);
    }
    if groups.is_empty() {
        assert!(std::env::var_os("CI").is_none(), "in CI there must be a writable v1 hierarchy");
        return;
    }
    let (environment, castoff) = environment(castoff);
    let online = std::thread::available_parallelism().map_or(1, usize::from);
    if online < 2 {
        expected.remove("CASTOFF_CPUS");
    }
    for (name, value) in expected {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
    let found = castoff.log().wait_for_event("limits_detected");
    assert!(["v1", "hybrid"].contains(&found["cgroup"].as_str().expect("text")), "{found}");
    drop(groups);
}
