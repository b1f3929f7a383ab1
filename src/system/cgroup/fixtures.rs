//! Every tree below `tests/fixtures/cgroup`, and what must be found in it: the
//! layouts that other readers of cgroups are known to have stumbled over. Each
//! holds `proc` and `sys`, which stands for `/sys/fs/cgroup`, and no more files
//! than its case needs. The machine has 8 CPUs.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::policy::limits::{CgroupKind, Levels, Limit};
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
    case("v2_covered_mount", V2).memory(64 << 20, "memory.max"),
    case("v2_mount_on_mount", V2).memory(64 << 20, "app/memory.max"),
    case("v1_two_mounts_show_the_group", V1).memory(64 << 20, "host/pod/memory.limit_in_bytes"),
    case("v2_group_deleted", V2).memory(64 << 20, "pod/memory.max"),
    case("v2_left_namespace", V2)
        .memory(64 << 20, "memory.max")
        .warns("cannot find the group of /proc/self/cgroup: it is outside of the cgroup namespace"),
    case("v2_left_to_sibling", V2).memory(64 << 20, "other/memory.max"),
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
    case("v1_cpuset_root", V1).affinity(8),
    case("v2_cpuset_partition", V2).affinity(6).cpus(6.0, "pod/app/cpuset.cpus.effective"),
    case("v2_threaded", V2)
        .cpus(0.5, "pod/threads/cpu.max")
        .memory(64 << 20, "pod/memory.max")
        .pids(20, "pod/threads/pids.max"),
    // The guest has a CPU more than the container.
    case("kata", V2).affinity(3).cpus(2.0, "cpu.max").memory(1 << 30, "memory.max"),
    case("gvisor", NoCgroup),
    case("v2_cpuset_empty", V2).cpus(3.0, "cpu.max"),
    // Memory and processes.
    case("v1_memory_1000m", V1).affinity(8).memory(1_048_576_000, V1_MEMORY),
    case("v2_memory_4321m", V2).affinity(8).memory(4_530_896_896, "memory.max"),
    case("v1_hidden_ancestor", V1).memory(64 << 20, "memory/memory.stat"),
    case("v1_use_hierarchy_off", V1).memory(512 << 20, "memory/pod/app/memory.limit_in_bytes"),
    case("v1_sentinel_of_64k_pages", V1),
    case("v2_memory_above_machine", V2).affinity(8),
    case("v2_memory_high", V2).memory(128 << 20, "memory.max"),
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
    let roots = Roots { cgroup: root.join("sys"), proc: root.join("proc") };
    super::detected(&roots, find_on(&roots, Some(ONLINE_CPUS)))
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
            // Below, for those that have ancestors.
            levels: limits.levels,
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
fn each_limit_is_of_a_level_above_the_own_group_or_of_none() {
    for (name, cpus, memory, pids) in [
        ("v2_half_cpu", Some(0), Some(0), Some(0)),
        ("v2_pod_lower_than_container", Some(1), Some(1), Some(0)),
        ("v2_own_path", Some(0), Some(1), None),
        ("v1_hidden_ancestor", None, None, None),
        ("v2_cpuset_partition", Some(0), None, None),
        ("affinity_only", None, None, None),
    ] {
        let root = fixtures().join(name);
        let roots = Roots { cgroup: root.join("sys"), proc: root.join("proc") };
        let found = find_on(&roots, Some(ONLINE_CPUS));
        let Levels { cpus: of_cpus, memory_bytes, pids: of_pids } = found.limits.levels;
        let levels = (of_cpus, memory_bytes, of_pids);
        assert_eq!(levels, (cpus, memory, pids), "{name}");
    }
}

#[test]
fn memory_high_is_told_and_limits_nothing() {
    for (name, high) in [
        ("v2_half_cpu", None),
        ("v2_memory_4321m", Some(1 << 20)),
        ("v2_memory_high", Some(64 << 20)),
    ] {
        let root = fixtures().join(name);
        let roots = Roots { cgroup: root.join("sys"), proc: root.join("proc") };
        let found = find_on(&roots, Some(ONLINE_CPUS));
        let found = memory_high(&roots, &found);
        assert_eq!(found, limit(high.map(|high| (high, "memory.high"))), "{name}");
    }
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
        let usage = detected(name).groups.usage();
        let found = (usage.memory_bytes, usage.throttled_periods, usage.throttled_seconds);
        assert_eq!(found, (memory_bytes, throttled_periods, throttled_seconds), "{name}");
        assert_eq!((usage.tree, usage.log_lines_dropped), (None, 0), "{name}");
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

/// A copy of a fixture that a test may write to; gone with the value.
struct Copied(PathBuf);

impl Copied {
    fn new(name: &str) -> Self {
        // Several tests copy the same one at a time.
        static COPIES: AtomicUsize = AtomicUsize::new(0);
        let nth = COPIES.fetch_add(1, Ordering::Relaxed);
        let to = std::env::temp_dir().join(format!("castoff-{name}-{}-{nth}", std::process::id()));
        let _ = std::fs::remove_dir_all(&to);
        copy(&fixtures().join(name), &to);
        Self(to)
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.0.join("sys").join(file);
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("a directory");
        std::fs::write(path, text).expect(file);
    }

    fn detected(&self) -> Detected {
        let roots = Roots { cgroup: self.0.join("sys"), proc: self.0.join("proc") };
        super::detected(&roots, find_on(&roots, Some(ONLINE_CPUS)))
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("a directory");
    for entry in std::fs::read_dir(from).expect("a fixture").flatten() {
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a file").is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).expect("a file");
        }
    }
}

#[test]
fn every_figure_of_v2_is_found_where_the_kernel_has_it() {
    let copied = Copied::new("v2_half_cpu");
    for (file, text) in [
        ("cpu.stat", "usage_usec 2500000\nnr_throttled 3\nthrottled_usec 250000\n"),
        ("memory.stat", "anon 1\ninactive_file 1048576\n"),
        ("pids.current", "12\n"),
        ("cpu.pressure", "some avg10=0.00 total=1500000\nfull avg10=0.00 total=500000\n"),
        ("io.pressure", "some avg10=0.00 total=7\n"),
    ] {
        copied.write(file, text);
    }
    let usage = copied.detected().groups.usage();
    assert_eq!(usage.cpu_seconds, Some(2.5));
    assert_eq!(usage.working_set_bytes, Some(4 << 20));
    assert_eq!(usage.pids, Some(12));
    let [cpu, memory, io] = usage.pressure;
    assert_eq!((cpu.waiting_seconds, cpu.stalled_seconds), (Some(1.5), Some(0.5)));
    assert_eq!(memory, Default::default());
    assert_eq!((io.waiting_seconds, io.stalled_seconds), (Some(0.000_007), None));
}

#[test]
fn the_pressure_of_an_ancestor_is_not_ones_own() {
    let copied = Copied::new("v2_pod_lower_than_container");
    copied.write("cpu.pressure", "some total=1500000\n");
    copied.write("kubepods.slice/cpu.pressure", "some total=1500000\n");
    let usage = copied.detected().groups.usage();
    assert_eq!(usage.pressure, [Default::default(); 3]);
}

#[test]
fn limits_are_read_again_as_they_are() {
    let copied = Copied::new("v2_half_cpu");
    let Detected { limits, files, .. } = copied.detected();
    assert_eq!(files.read_again(&limits).memory_bytes, limits.memory_bytes);
    copied.write("memory.max", "33554432\n");
    copied.write("pids.max", "max\n");
    let now = files.read_again(&limits);
    assert_eq!(now.memory_bytes.as_ref().map(|limit| limit.value), Some(32 << 20));
    assert_eq!(now.pids, None);
    // An empty file is one that is being written.
    copied.write("memory.max", "");
    assert_eq!(files.read_again(&now).memory_bytes, now.memory_bytes);
    copied.write("memory.max", "max\n");
    assert_eq!(files.read_again(&now).memory_bytes, None);
}

#[test]
fn a_fifo_in_the_place_of_a_file_is_not_waited_for() {
    let copied = Copied::new("v2_half_cpu");
    let Detected { limits, files, .. } = copied.detected();
    let path = copied.0.join("sys/memory.max");
    std::fs::remove_file(&path).expect("it is there");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    // It says nothing, and is not taken for a limit that has gone.
    assert_eq!(files.read_again(&limits).memory_bytes, limits.memory_bytes);
}

#[test]
fn every_file_is_watched_that_somebody_writes_to_change_a_limit() {
    let names = |name: &str| -> Vec<String> {
        let files = detected(name).files;
        let sys = fixtures().join(name).join("sys");
        let below = |path: PathBuf| Some(path.strip_prefix(&sys).ok()?.display().to_string());
        files.paths().into_iter().filter_map(below).collect()
    };
    let v2 = names("v2_pod_lower_than_container");
    for level in ["", "kubepods.slice/", "kubepods.slice/pod7.slice/"] {
        for file in ["cpu.max", "cpuset.cpus", "memory.max", "pids.max"] {
            assert!(v2.contains(&format!("{level}{file}")), "{level}{file} of {v2:?}");
        }
    }
    let v1 = names("v1_host_namespace");
    for file in [QUOTA, "cpu,cpuacct/cpu.cfs_period_us", V1_MEMORY, "pids/pids.max"] {
        assert!(v1.contains(&file.to_owned()), "{file} of {v1:?}");
    }
    assert_eq!(names("no_proc"), [""; 0]);
}
