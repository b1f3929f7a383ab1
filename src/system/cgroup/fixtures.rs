//! Every tree below `tests/fixtures/cgroup`, and what must be found in it: the
//! layouts that other readers of cgroups are known to have stumbled over. Each
//! holds `proc` and `sys`, which stands for `/sys/fs/cgroup`, and no more files
//! than its case needs. The machine has 8 CPUs.

use super::*;
use crate::policy::limits::{CgroupKind, Limit};
use CgroupKind::{Hybrid, None as NoCgroup, V1, V2};

const ONLINE_CPUS: u32 = 8;

/// What is expected; a limit's source is given below `/sys/fs/cgroup`.
#[derive(Clone, Copy)]
struct Case {
    name: &'static str,
    cgroup: CgroupKind,
    cpus: Option<(f64, &'static str)>,
    memory_bytes: Option<(u64, &'static str)>,
    pids: Option<(u64, &'static str)>,
    affinity: Option<u32>,
    /// The start of the only warning; empty for none at all.
    warning: &'static str,
}

const fn case(name: &'static str, cgroup: CgroupKind) -> Case {
    Case { name, cgroup, cpus: None, memory_bytes: None, pids: None, affinity: None, warning: "" }
}

impl Case {
    const fn cpus(self, value: f64, source: &'static str) -> Self {
        Self { cpus: Some((value, source)), ..self }
    }

    const fn memory(self, value: u64, source: &'static str) -> Self {
        Self { memory_bytes: Some((value, source)), ..self }
    }

    const fn pids(self, value: u64, source: &'static str) -> Self {
        Self { pids: Some((value, source)), ..self }
    }

    const fn affinity(self, count: u32) -> Self {
        Self { affinity: Some(count), ..self }
    }

    const fn warns(self, warning: &'static str) -> Self {
        Self { warning, ..self }
    }
}

const QUOTA: &str = "cpu,cpuacct/cpu.cfs_quota_us";
const V1_MEMORY: &str = "memory/memory.limit_in_bytes";

const CASES: &[Case] = &[
    // Which controllers are where.
    case("v1_two_depths", V1)
        .affinity(8)
        .cpus(3.0, QUOTA)
        .memory(512 << 20, "memory/large/memory.limit_in_bytes"),
    case("v1_host_namespace", V1)
        .affinity(8)
        .cpus(0.5, QUOTA)
        .memory(64 << 20, V1_MEMORY)
        .pids(50, "pids/pids.max"),
    case("v1_controllers_in_other_order", V1).cpus(3.5, QUOTA),
    case("v1_similar_names", V1).memory(64 << 20, "mix/memory.limit_in_bytes"),
    case("v1_no_cpu_controller", V1).memory(128 << 20, V1_MEMORY),
    case("v2_own_path", V2)
        .cpus(1.5, "apps.slice/Example/cpu.max")
        .memory(2 << 30, "apps.slice/memory.max"),
    case("hybrid", Hybrid).affinity(8).cpus(2.5, QUOTA),
    case("hybrid_memory_in_v2", Hybrid)
        .cpus(2.5, QUOTA)
        .memory(64 << 20, "unified/memory.max")
        .pids(40, "pids/pids.max"),
    case("named_v1_beside_v2", V2).pids(20, "pids.max"),
    case("no_cgroup_mounts", NoCgroup),
    // From the path of the group to a directory.
    case("v1_path_outside_mount", V1).memory(128 << 20, V1_MEMORY),
    case("v1_trailing_slash", V1).memory(64 << 20, "memory/x/memory.limit_in_bytes"),
    case("v1_sibling_with_same_prefix", V1).memory(64 << 20, V1_MEMORY),
    case("v1_path_with_dots", V1).memory(64 << 20, V1_MEMORY),
    case("v1_path_with_colons", V1)
        .memory(64 << 20, "memory/k8s.slice:cri-containerd:9f/memory.limit_in_bytes"),
    case("v2_mount_above_namespace", V2).memory(64 << 20, "memory.max"),
    case("v2_host_mount_too", V2).memory(64 << 20, "memory.max"),
    case("mount_point_with_space", V2).cpus(0.5, "a b/cpu.max"),
    // Lines that are odd, broken or missing.
    case("mountinfo_odd_lines", V2).cpus(0.5, "cpu.max"),
    case("mountinfo_nsfs_root", V2).cpus(0.5, "cpu.max"),
    case("mountinfo_long_line", V2).cpus(0.5, "cpu.max"),
    case("mountinfo_bad_lines", V2)
        .cpus(0.5, "cpu.max")
        .warns("cannot use 4 of the lines in /proc/self/mountinfo: skipped"),
    case("mountinfo_cut_short", V2)
        .pids(20, "pids.max")
        .warns("cannot use 1 of the lines in /proc/self/mountinfo: skipped"),
    case("mountinfo_empty", NoCgroup),
    case("cgroup_line_without_path", V2)
        .pids(20, "pids.max")
        .warns("cannot use 1 of the lines in /proc/self/cgroup: skipped"),
    case("cgroup_relative_path", V2)
        .memory(64 << 20, "memory.max")
        .warns("cannot use 1 of the lines in /proc/self/cgroup: skipped"),
    case("cgroup_id_is_text", V1)
        .pids(33, "pids/box/pids.max")
        .warns("cannot use 1 of the lines in /proc/self/cgroup: skipped"),
    case("cgroup_without_v2_line", V2)
        .warns("cannot use 1 of the lines in /proc/self/cgroup: skipped"),
    case("cgroup_backslashes", V2).warns("cannot use 1 of the lines in /proc/self/cgroup: skipped"),
    case("no_cgroup_file", V2).cpus(2.0, "cpu.max").warns(
        "cannot read /proc/self/cgroup: No such file or directory; \
         limits are taken from the cgroup mount points",
    ),
    case("no_mountinfo_v1", V1).cpus(0.5, "cpu,cpuacct/box/cpu.cfs_quota_us").warns(
        "cannot read /proc/self/mountinfo: No such file or directory; limits are looked for",
    ),
    case("no_mountinfo_v2", V2).memory(256 << 20, "memory.max").warns(
        "cannot read /proc/self/mountinfo: No such file or directory; limits are looked for",
    ),
    case("no_mountinfo_no_cgroups", NoCgroup).warns(
        "cannot read /proc/self/mountinfo: No such file or directory; limits are looked for",
    ),
    case("no_proc", NoCgroup).warns(
        "cannot read /proc/self/cgroup and /proc/self/mountinfo: \
         No such file or directory; no cgroup limit is known",
    ),
    // CPU.
    case("v1_six_cpus", V1).cpus(6.0, QUOTA),
    case("v1_one_and_a_half_cpus", V1).cpus(1.5, QUOTA),
    case("v1_quota_without_newline", V1).cpus(5.0, QUOTA),
    case("v1_unlimited", V1).affinity(8),
    case("v1_quota_largest", V1),
    case("v1_quota_text_after_number", V1)
        .warns("cannot use /sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us \"123max\": expected -1 or"),
    case("v1_period_zero", V1)
        .warns("cannot use /sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us \"0\": expected a number"),
    case("v1_period_empty", V1)
        .warns("cannot use /sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us \"\": expected a number"),
    case("v1_period_text", V1).warns(
        "cannot use /sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us \"often\": expected a number",
    ),
    case("v1_period_missing", V1)
        .warns("cannot use /sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us \"\": expected a number"),
    case("v2_half_cpu", V2)
        .affinity(8)
        .cpus(0.5, "cpu.max")
        .memory(64 << 20, "memory.max")
        .pids(50, "pids.max"),
    case("v2_two_and_a_half_cpus", V2).cpus(2.5, "cpu.max"),
    case("v2_quota_without_period", V2).cpus(5.0, "cpu.max"),
    case("v2_quota_largest_period", V2).cpus(1.0, "cpu.max"),
    case("v2_unlimited", V2).affinity(8),
    case("v2_no_files", V2),
    case("v2_quota_text", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"asdf 100000\": expected a quota"),
    case("v2_period_text", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"500000 njn\": expected a quota"),
    case("v2_cpu_max_empty", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"\": expected a quota"),
    case("v2_cpu_max_blank", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"\": expected a quota"),
    case("v2_cpu_max_three_fields", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"1 2 3\": expected a quota"),
    case("v2_period_zero", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"250000 0\": expected a quota"),
    case("v2_quota_zero", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"0 100000\": expected a quota"),
    case("v2_cpu_max_no_utf8", V2)
        .pids(20, "pids.max")
        .warns("cannot use /sys/fs/cgroup/cpu.max \"\u{fffd}\u{fffd} 100000\": expected a quota"),
    case("v2_cpu_max_unreadable", V2)
        .pids(20, "pids.max")
        .warns("cannot read /sys/fs/cgroup/cpu.max: Is a directory"),
    case("v2_pod_lower_than_container", V2)
        .cpus(1.5, "kubepods.slice/pod7.slice/cpu.max")
        .memory(512 << 20, "kubepods.slice/pod7.slice/memory.max")
        .pids(100, "kubepods.slice/pod7.slice/cri-9f.scope/pids.max"),
    case("affinity_only", V2).cpus(3.0, "affinity").affinity(3),
    case("cpuset_only", V2).cpus(2.0, "cpuset.cpus.effective").affinity(2),
    case("quota_above_affinity", V2).cpus(1.0, "affinity").affinity(1),
    case("v1_cpuset_empty", V1),
    case("v2_cpuset_empty", V2).cpus(3.0, "cpu.max"),
    // Memory and processes.
    case("v1_memory_1000m", V1).affinity(8).memory(1_048_576_000, V1_MEMORY),
    case("v2_memory_4321m", V2).affinity(8).memory(4_530_896_896, "memory.max"),
    case("v1_hidden_ancestor", V1).memory(64 << 20, "memory/memory.stat"),
    case("v1_sentinel_of_64k_pages", V1),
    case("v2_memory_above_machine", V2).affinity(8),
    case("v2_lxcfs", V2).memory(512 << 20, "memory.max"),
    case("v2_zero_amounts", V2)
        .warns("cannot use /sys/fs/cgroup/memory.max \"0\": expected \"max\""),
    case("v1_numa_stat_empty", V1),
];

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cgroup")
}

fn detected(name: &str) -> Detected {
    let root = fixtures().join(name);
    detect_on(&Roots { cgroup: root.join("sys"), proc: root.join("proc") }, Some(ONLINE_CPUS))
}

fn limit<T>(expected: Option<(T, &str)>) -> Option<Limit<T>> {
    expected.map(|(value, source)| {
        let source = match source {
            "affinity" => source.to_owned(),
            below => format!("{USUAL_MOUNT}/{below}"),
        };
        Limit { value, source }
    })
}

#[test]
fn limits_of_every_fixture() {
    for case in CASES {
        let Detected { limits, warnings, .. } = detected(case.name);
        let expected = Limits {
            cgroup: case.cgroup,
            cpus: limit(case.cpus),
            memory_bytes: limit(case.memory_bytes),
            pids: limit(case.pids),
            affinity: case.affinity,
            cpus_are_inherited: ["no_mountinfo_v1", "v2_pod_lower_than_container"]
                .contains(&case.name),
        };
        assert_eq!(limits, expected, "{}: {warnings:?}", case.name);
        match case.name {
            "v2_zero_amounts" => assert_eq!(warnings.len(), 2, "{warnings:?}"),
            name => assert_eq!(
                warnings.len(),
                usize::from(!case.warning.is_empty()),
                "{name}: {warnings:?}"
            ),
        }
        let first = warnings.first().map_or("", String::as_str);
        assert!(first.starts_with(case.warning), "{}: {warnings:?}", case.name);
    }
}

#[test]
fn every_fixture_is_used_once() {
    let mut trees: Vec<_> = std::fs::read_dir(fixtures())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let mut names: Vec<_> = CASES.iter().map(|case| case.name.to_owned()).collect();
    trees.sort();
    names.sort();
    assert_eq!(names, trees);
}

#[test]
fn usage_is_that_of_the_own_group() {
    for (name, memory_bytes, throttled_periods, throttled_seconds) in [
        ("v2_half_cpu", Some(5 << 20), Some(3), Some(0.25)),
        ("v1_memory_1000m", Some(7 << 20), Some(7), Some(2.5)),
        // What is missing is none, not 0.
        ("v2_unlimited", None, None, None),
        ("v1_unlimited", None, None, None),
        ("no_proc", None, None, None),
        // An empty file beside the one that is wanted is no obstacle.
        ("v1_numa_stat_empty", Some(7 << 20), None, None),
    ] {
        let expected =
            Usage { memory_bytes, throttled_periods, throttled_seconds, log_lines_dropped: 0 };
        assert_eq!(detected(name).groups.usage(), expected, "{name}");
    }
}

#[test]
fn a_mount_elsewhere_is_read_where_it_is() {
    let roots = Roots { cgroup: "/c".into(), proc: "/p".into() };
    for (path, real) in [
        ("/sys/fs/cgroup/cpu.max", "/c/cpu.max"),
        ("/sys/fs/cgroup", "/c"),
        ("/sys/fs/cgroup2/cpu.max", "/sys/fs/cgroup2/cpu.max"),
        ("/dev/cgroup/cpu.max", "/dev/cgroup/cpu.max"),
        ("/proc/self/status", "/p/self/status"),
    ] {
        assert_eq!(roots.real(Path::new(path)), Path::new(real), "{path}");
    }
}
