//! The limits that podman sets, as the child sees them in its environment.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::podman::{Container, Image, Running, shared_directory, variables};
use crate::wait_until::wait_until;

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
fn each_limit_alone_is_what_was_asked_for() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let exported_with = |option| exported([namespace, "--pids-limit=-1", option]);
        for (option, cpus, go, openmp, python) in [
            ("--cpus=0.25", "0.25", "2", "1", "1"),
            ("--cpus=1", "1", "2", "1", "1"),
            ("--cpus=1.5", "1.5", "2", "1", "2"),
        ] {
            let expected = these([
                ("CASTOFF_CPUS", cpus),
                ("GOMAXPROCS", go),
                ("OMP_NUM_THREADS", openmp),
                ("PYTHON_CPU_COUNT", python),
            ]);
            assert_eq!(exported_with(option), expected, "{namespace} {option}");
        }
        for (option, bytes, go) in [
            ("--memory=128m", "134217728", "120795955"),
            ("--memory=1g", "1073741824", "966367641"),
            // Whole pages are what the kernel keeps.
            ("--memory=67108863b", "67104768", "60394291"),
        ] {
            let expected = these([("CASTOFF_MEMORY_BYTES", bytes), ("GOMEMLIMIT", go)]);
            assert_eq!(exported_with(option), expected, "{namespace} {option}");
        }
        let expected = these([("CASTOFF_PIDS", "17")]);
        assert_eq!(exported([namespace, "--pids-limit=17"]), expected, "{namespace}");
    }
}

#[test]
fn a_reservation_and_a_share_are_no_limits() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let options = [namespace, "--pids-limit=-1", "--memory-reservation=64m", "--cpu-shares=2"];
        assert_eq!(exported(options), these([]), "{namespace}");
    }
}

#[test]
fn the_smaller_of_quota_and_set_of_processors_counts() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let all = [namespace, "--pids-limit=-1", "--cpuset-cpus=0", "--cpus=1.5"];
        let expected = these([
            ("CASTOFF_CPUS", "1"),
            // More would have to take turns on the one.
            ("GOMAXPROCS", "1"),
            ("OMP_NUM_THREADS", "1"),
            ("PYTHON_CPU_COUNT", "1"),
        ]);
        assert_eq!(exported(all), expected, "{namespace}");
        let quota = [namespace, "--pids-limit=-1", "--cpuset-cpus=0", "--cpus=0.5"];
        assert_eq!(exported(quota)["CASTOFF_CPUS"], "0.5", "{namespace}");
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
fn explain_names_limits_and_files_and_starts_nothing() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        // The ENTRYPOINT would take `explain` for a program.
        let mut container = Container::of(Image::Scratch)
            .option(namespace)
            .option("--memory=64m")
            .option("--cpus=0.5")
            .option("--pids-limit=50")
            .option("--entrypoint=/castoff")
            .child(["explain", "--json", "--", "/print_env"])
            .start();
        assert_eq!(container.code(), 0, "{:?}", container.log.all());
        let told: Value = serde_json::from_str(&container.stdout.all().join("\n"))
            .unwrap_or_else(|error| panic!("{error}: {:?}", container.stdout.all()));
        let limits = &told["limits"];
        assert_eq!(limits["cpus"], 0.5, "{namespace}: {told}");
        assert_eq!(limits["memory_bytes"], 67108864, "{namespace}: {told}");
        assert_eq!(limits["pids"], 50, "{namespace}: {told}");
        let sources = limits["sources"].to_string();
        for file in ["/sys/fs/cgroup/memory/", "/sys/fs/cgroup/cpu", "/sys/fs/cgroup/pids/"] {
            assert!(sources.contains(file), "{namespace}: {sources}");
        }
        let exports = told["exports"].as_array().expect("a list");
        let value_of = |name| {
            let export = exports.iter().find(|export| export["name"] == name);
            export.map(|export| export["value"].as_str().unwrap_or_default())
        };
        assert_eq!(value_of("GOMEMLIMIT"), Some("60397977"), "{namespace}: {told}");
        assert_eq!(value_of("CASTOFF_CPUS"), Some("0.5"), "{namespace}: {told}");
        assert!(told["timeline"].as_array().is_some_and(|list| !list.is_empty()), "{told}");
    }
}

#[test]
fn the_kernel_killing_the_child_for_memory_is_told_as_such() {
    for namespace in ["--cgroupns=host", "--cgroupns=private"] {
        let directory = shared_directory();
        let message = directory.join("message");
        fs::write(&message, "").expect("a file");
        let mount = format!("--volume={}:/dev/termination-log", message.display());
        let mut container = Container::of(Image::Busybox)
            .option(namespace)
            .option("--memory=48m")
            .option("--memory-swap=48m")
            .option(mount)
            .child(["/bin/sh", "-c", "exec dd if=/dev/zero of=/dev/null bs=200M count=1"])
            .start();
        assert_eq!(container.code(), 137, "{namespace}: {:?}", container.log.all());
        let exited = container.log.wait_for_event("child_exited");
        assert_eq!(exited["reason"], "oom_killed", "{namespace}: {exited}");
        let kill = container.log.wait_for_event("oom_kill");
        assert_eq!(kill["victim"], "child", "{namespace}: {kill}");
        assert_eq!(kill["count"], 1, "{namespace}: {kill}");
        let told = fs::read_to_string(&message).expect("the message");
        assert!(told.contains("137") && told.len() <= 4096, "{namespace}: {told}");
    }
}

#[test]
fn a_limit_that_is_changed_while_it_runs_is_noticed() {
    let mut container = Container::of(Image::Scratch)
        .published()
        .option("--memory=128m")
        .option("--cgroupns=host")
        .start();
    container.until_serving();
    let limit = |container: &Running| {
        let metrics = container.get("/metrics").body;
        let line = metrics.lines().find(|line| line.starts_with("castoff_memory_limit_bytes "));
        line.and_then(|line| line.split_once(' ')).map(|(_, value)| value.to_owned())
    };
    assert_eq!(limit(&container).as_deref(), Some("134217728"));
    // podman 4.3 has no `update`: by the file that a runtime would write to.
    let pid = container.podman("inspect", ["--format={{.State.Pid}}"]);
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its cgroups");
    let (_, path) = groups
        .lines()
        .find_map(|line| line.split_once(":memory:"))
        .expect("a cgroup of v1 for memory");
    let group = Path::new("/sys/fs/cgroup/memory").join(path.trim_start_matches('/'));
    fs::write(group.join("memory.limit_in_bytes"), "100663296").expect("a lower limit");
    wait_until("the new limit", || {
        (limit(&container).as_deref() == Some("100663296")).then_some(())
    });
    let changed = container.log.wait_for_event("limits_changed").to_string();
    assert!(changed.contains("134217728") && changed.contains("100663296"), "{changed}");
    container.stop(10);
    assert_eq!(container.code(), 0);
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
