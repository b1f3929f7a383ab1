//! The limits that podman sets, as the child sees them in its environment.

use std::collections::HashMap;

use crate::podman::{Container, Image, variables};

/// What castoff may export by itself.
const EXPORTED: [&str; 7] = [
    "CASTOFF_CPUS",
    "CASTOFF_MEMORY_BYTES",
    "CASTOFF_PIDS",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "OMP_NUM_THREADS",
    "PYTHON_CPU_COUNT",
];

/// The exported variables of a child that runs with these options of podman.
#[track_caller]
fn exported<const N: usize>(options: [&str; N]) -> HashMap<String, String> {
    let container = Container::of(Image::Scratch).child(["/print_env"]);
    let container = options.into_iter().fold(container, Container::option);
    let mut container = container.start();
    assert_eq!(container.code(), 0, "{:?}", container.log.all());
    let mut variables = variables(&container.stdout);
    variables.retain(|name, _| EXPORTED.contains(&name.as_str()));
    variables
}

fn these<const N: usize>(variables: [(&str, &str); N]) -> HashMap<String, String> {
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
}

#[test]
fn memory_cpus_and_pids_are_seen_with_and_without_a_cgroup_namespace() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let exported = exported([namespace, "--memory=64m", "--cpus=0.5", "--pids-limit=50"]);
        let expected = these([
            ("CASTOFF_CPUS", "0.5"),
            ("CASTOFF_MEMORY_BYTES", "67108864"),
            ("CASTOFF_PIDS", "50"),
            // What Go does itself with half a processor: never below two.
            ("GOMAXPROCS", "2"),
            ("GOMEMLIMIT", "60397977"),
            ("OMP_NUM_THREADS", "1"),
            ("PYTHON_CPU_COUNT", "1"),
        ]);
        assert_eq!(exported, expected, "{namespace}");
    }
}

#[test]
fn a_set_of_processors_counts_as_a_limit() {
    let processors = std::thread::available_parallelism().expect("a number").get();
    assert!(processors > 1, "these tests need two processors");
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let exported = exported([namespace, "--cpuset-cpus=1", "--pids-limit=-1"]);
        assert_eq!(exported["CASTOFF_CPUS"], "1", "{namespace}: {exported:?}");
        assert_eq!(exported["OMP_NUM_THREADS"], "1", "{namespace}: {exported:?}");
        assert!(!exported.contains_key("CASTOFF_MEMORY_BYTES"), "{namespace}: {exported:?}");
    }
}

#[test]
fn without_limits_nothing_is_exported() {
    // podman itself sets a limit on processes unless it is told not to.
    assert_eq!(exported(["--pids-limit=-1"]), these([]));
    let mut of_podman = exported([]);
    of_podman.remove("CASTOFF_PIDS");
    assert_eq!(of_podman, these([]));
}

#[test]
fn a_variable_that_is_set_stays_as_it_is_even_when_it_is_empty() {
    let exported =
        exported(["--cpus=1.5", "--memory=64m", "--env=GOMAXPROCS=7", "--env=GOMEMLIMIT="]);
    assert_eq!(exported["GOMAXPROCS"], "7");
    assert_eq!(exported["GOMEMLIMIT"], "");
    assert_eq!(exported["CASTOFF_CPUS"], "1.5");
}

#[test]
fn the_log_says_where_the_limits_come_from() {
    let mut container = Container::of(Image::Scratch)
        .option("--memory=64m")
        .option("--cpus=0.5")
        .child(["/print_env"])
        .start();
    assert_eq!(container.code(), 0);
    let limits = container.log.wait_for_event("limits_detected");
    assert_eq!(limits["cpus"], 0.5);
    assert_eq!(limits["memory_bytes"], 67108864);
    assert!(limits["cpu_source"].is_string() && limits["memory_source"].is_string(), "{limits}");
}

/// What `podman update` does is what a resize of a Pod does: the runtime writes to
/// the files of the container's group, from outside and through other mounts.
#[test]
fn limits_that_are_changed_from_outside_are_told_and_answered() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let mut container = Container::of(Image::Scratch)
            .option(namespace)
            .option("--memory=64m")
            .option("--cpus=0.5")
            .env("CASTOFF_RESIZE_ACTION", "signal:SIGUSR1")
            .child(["/print_signals"])
            .published()
            .start();
        container.until_serving();
        container.stdout.wait_for_line("ready ");
        container.podman("update", ["--memory=96m", "--memory-swap=96m", "--cpus=1.5"]);
        container.stdout.wait_for_line("10 ");
        let changed = container.log.wait_for_event("limits_changed");
        assert_eq!(changed["memory_bytes_from"], 64 << 20, "{namespace}: {changed}");
        assert_eq!(changed["memory_bytes_to"], 96 << 20, "{namespace}: {changed}");
        assert_eq!((&changed["cpus_from"], &changed["cpus_to"]), (&0.5.into(), &1.5.into()));
        let metrics = container.get("/metrics").body;
        for sample in ["castoff_cpu_limit_cores 1.5", "castoff_memory_limit_bytes 100663296"] {
            assert!(metrics.lines().any(|line| line == sample), "{namespace}: {metrics}");
        }
        container.stop(10);
        assert_eq!(container.code(), 0);
    }
}
