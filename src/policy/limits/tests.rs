//! Whatever the files hold, a limit is a number above 0 or there is none.

use super::*;
use proptest::prelude::*;

mod world;

const V2_MOUNT: &str = "30 20 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup rw\n";

/// The files of a container on v2, by path.
fn v2<'a>(files: &'a [(&'a str, &'a str)]) -> impl Fn(&Path) -> Text + 'a {
    move |path| {
        Ok(match path.to_str() {
            Some(CGROUP) => Some(b"0::/\n".to_vec()),
            Some(MOUNTINFO) => Some(V2_MOUNT.as_bytes().to_vec()),
            path => files
                .iter()
                .find(|(name, _)| path == Some(*name))
                .map(|(_, text)| text.as_bytes().to_vec()),
        })
    }
}

#[test]
fn a_file_that_cannot_be_used_is_a_warning_that_shows_its_text() {
    let files =
        v2(&[("/sys/fs/cgroup/cpu.max", "asdf 100000\n"), ("/sys/fs/cgroup/pids.max", "7")]);
    let found = find(Some(2), files);
    assert_eq!(found.limits.cpus, None);
    assert_eq!(found.limits.pids.unwrap().value, 7);
    assert_eq!(
        found.warnings,
        ["cannot use /sys/fs/cgroup/cpu.max \"asdf 100000\": \
          expected a quota and a period above 0, such as \"50000 100000\""]
    );
}

#[test]
fn what_cannot_be_read_is_a_warning_with_the_cause() {
    let found = find(None, |_| Err("Permission denied (os error 13)".to_owned()));
    assert_eq!(found.limits, Limits::default());
    assert_eq!(
        found.warnings,
        [
            "cannot read /proc/self/cgroup and /proc/self/mountinfo: \
             Permission denied (os error 13); no cgroup limit is known",
            "cannot read /proc/self/status: Permission denied (os error 13)",
        ]
    );
}

#[test]
fn affinity_alone_is_a_limit_only_below_the_number_of_cpus_online() {
    let status = ("/proc/self/status", "Cpus_allowed_list:\t0-1\n");
    for (online, quota, expected) in [
        (Some(2), "max 100000", None),
        (None, "max 100000", None),
        (Some(4), "max 100000", Some((2.0, "affinity"))),
        (Some(2), "600000 100000", Some((2.0, "affinity"))),
        (Some(4), "200000 100000", Some((2.0, "/sys/fs/cgroup/cpu.max"))),
        (Some(4), "150000 100000", Some((1.5, "/sys/fs/cgroup/cpu.max"))),
    ] {
        let files = [status, ("/sys/fs/cgroup/cpu.max", quota)];
        let limits = find(online, v2(&files)).limits;
        let cpus = limits.cpus.map(|limit| (limit.value, limit.source));
        assert_eq!(cpus, expected.map(|(cpus, source)| (cpus, source.to_owned())), "{quota}");
        assert_eq!(limits.affinity, Some(2));
    }
}

#[test]
fn files_that_do_not_matter_are_not_fetched() {
    let mut fetched = Vec::new();
    let files = v2(&[("/sys/fs/cgroup/memory.max", "max\n")]);
    find(Some(2), |path: &Path| {
        fetched.push(path.display().to_string());
        files(path)
    });
    assert_eq!(
        fetched,
        [
            "/proc/self/cgroup",
            "/proc/self/mountinfo",
            "/sys/fs/cgroup/cpu.max",
            "/sys/fs/cgroup/cpuset.cpus.effective",
            "/proc/self/status",
            "/sys/fs/cgroup/memory.max",
            "/sys/fs/cgroup/pids.max",
        ]
    );
}

#[test]
fn a_line_of_megabytes_hides_nothing() {
    let lowers = ":/l/ABCDEFGHIJKLMNOPQRSTUVWXYZ".repeat(100_000);
    let long = format!("21 20 0:61 / / rw - overlay overlay rw,lowerdir=/l/A{lowers}\n{V2_MOUNT}");
    assert!((3_000_000..LONGEST).contains(&long.len()));
    let read = |path: &Path| {
        Ok(match path.to_str() {
            Some(CGROUP) => Some(b"0::/\n".to_vec()),
            Some(MOUNTINFO) => Some(long.as_bytes().to_vec()),
            Some("/sys/fs/cgroup/pids.max") => Some(b"7\n".to_vec()),
            _ => None,
        })
    };
    let found = find(None, read);
    assert_eq!(found.limits.pids.unwrap().value, 7);
    assert_eq!(found.warnings, [""; 0]);
}

#[test]
fn what_is_cut_off_is_a_warning() {
    let mut long = V2_MOUNT.as_bytes().to_vec();
    long.resize(LONGEST, b'\n');
    let read = |path: &Path| Ok((path == Path::new(MOUNTINFO)).then(|| long.clone()));
    let warnings = find(None, read).warnings;
    let expected = "cannot use all of /proc/self/mountinfo: only 4194304 bytes of it were read";
    assert!(warnings.iter().any(|warning| warning == expected), "{warnings:?}");
}

#[test]
fn denied_files_of_many_levels_are_few_warnings() {
    let read = |path: &Path| match path.to_str() {
        Some(CGROUP) => Ok(Some(b"0::/a/b/c/d/e".to_vec())),
        Some(MOUNTINFO) => Ok(Some(V2_MOUNT.as_bytes().to_vec())),
        Some(path) if path.starts_with(USUAL_MOUNT) => Err("Permission denied".to_owned()),
        _ => Ok(None),
    };
    let found = find(Some(2), read);
    assert_eq!(found.limits, Limits { cgroup: CgroupKind::V2, ..Limits::default() });
    assert_eq!(found.warnings.len(), WARNINGS_MAX + 1);
    let first = "cannot read /sys/fs/cgroup/a/b/c/d/e/cpu.max: Permission denied";
    assert_eq!(found.warnings.first().unwrap(), first);
    // cpu, cpuset, memory and pids of six levels each.
    assert_eq!(found.warnings.last().unwrap(), "16 more of this kind");
}

#[test]
fn names_of_the_set_ups() {
    let kinds = [CgroupKind::V1, CgroupKind::V2, CgroupKind::Hybrid, CgroupKind::None];
    assert_eq!(kinds.map(CgroupKind::as_str), ["v1", "v2", "hybrid", "none"]);
}

fn assert_sound(found: &Found) -> Result<(), TestCaseError> {
    let limits = &found.limits;
    prop_assert!(
        limits.cpus.as_ref().is_none_or(|cpus| cpus.value > 0.0 && cpus.value.is_finite())
    );
    prop_assert!(limits.memory_bytes.as_ref().is_none_or(|bytes| bytes.value > 0));
    prop_assert!(limits.pids.as_ref().is_none_or(|pids| pids.value > 0));
    prop_assert_ne!(limits.affinity, Some(0));
    Ok(())
}

/// Bytes, or something close to what the files hold.
fn texts() -> impl Strategy<Value = Vec<u8>> {
    let close = "([0-9]{1,20}|max|-1|,|-| |:|/|\\.\\.|\\\\040|cpu|memory|cgroup2?|0::/a|\n\
                 |1:cpu,memory:/a/b\n|30 20 0:26 / /sys/fs/cgroup rw - cgroup2 c rw\n\
                 |30 20 0:26 /a /m rw - cgroup c rw,cpu,memory\n|Cpus_allowed_list:\t0-1\n){0,8}";
    prop_oneof![proptest::collection::vec(any::<u8>(), 0..80), close.prop_map(String::into_bytes)]
}

proptest! {
    #[test]
    fn no_text_of_any_file_breaks_detection(
        cgroup in texts(), mountinfo in texts(), status in texts(), meminfo in texts(),
        limit in texts(), online in any::<Option<u32>>(),
    ) {
        assert_sound(&find(online, |path: &Path| Ok(Some(match path.to_str() {
            Some(CGROUP) => cgroup.clone(),
            Some(MOUNTINFO) => mountinfo.clone(),
            Some(STATUS) => status.clone(),
            Some(MEMINFO) => meminfo.clone(),
            _ => limit.clone(),
        }))))?;
    }

    #[test]
    fn no_limit_file_gives_a_limit_of_zero(limit in texts(), is_v1 in any::<bool>()) {
        let (cgroup, mountinfo) = if is_v1 {
            ("1:cpu,cpuset,memory,pids:/a", "3 2 0:1 / /m rw - cgroup c rw,cpu,cpuset,memory,pids")
        } else {
            ("0::/a", V2_MOUNT)
        };
        assert_sound(&find(Some(8), |path: &Path| Ok(Some(match path.to_str() {
            Some(CGROUP) => cgroup.as_bytes().to_vec(),
            Some(MOUNTINFO) => mountinfo.as_bytes().to_vec(),
            _ => limit.clone(),
        }))))?;
    }
}
