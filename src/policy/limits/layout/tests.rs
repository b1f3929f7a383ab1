//! Lines of the two files, and where they lead.

use super::*;

/// A v1 mount of `controllers` and what `/proc/self/cgroup` says of it.
fn levels(root: &str, point: &str, path: &str) -> Vec<String> {
    let cgroup = format!("5:memory:{path}\n");
    let mountinfo = format!("30 20 0:26 {root} {point} rw - cgroup cgroup rw,memory\n");
    let layout = Layout::new(Some(cgroup.as_bytes()), Some(mountinfo.as_bytes()));
    let levels = layout.memory.map(|group| group.levels).unwrap_or_default();
    levels.iter().map(|level| level.display().to_string()).collect()
}

#[test]
fn levels_go_from_the_own_group_up_to_the_mount_point() {
    for (root, path, expected) in [
        ("/", "/", vec!["/m"]),
        ("/", "/a", vec!["/m/a", "/m"]),
        ("/", "/a/b/", vec!["/m/a/b", "/m/a", "/m"]),
        ("/docker", "/docker/large", vec!["/m/large", "/m"]),
        ("/docker", "/docker", vec!["/m"]),
        ("/a", "/a/a/b", vec!["/m/a/b", "/m/a", "/m"]),
        // Mounted outside of the namespace, or somebody else's: what is shown
        // at the mount point is all that can be known.
        ("/..", "/../c", vec!["/m/c", "/m"]),
        ("/../..", "/", vec!["/m"]),
        ("/docker", "/docker2/x", vec!["/m"]),
        ("/docker", "/system.slice", vec!["/m"]),
        ("/", "/../x", vec!["/m"]),
        ("/a", "/a/../b", vec!["/m"]),
    ] {
        assert_eq!(levels(root, "/m", path), expected, "{root} {path}");
    }
    assert_eq!(levels("/", r"/m\011\040\134n", "/a b"), ["/m\t \\n/a b", "/m\t \\n"]);
    assert_eq!(levels("/", r"/m\04", "/"), [r"/m\04"]);
}

#[test]
fn lines_of_the_cgroup_file() {
    let parse = |line: &str| {
        let membership = Membership::parse(line.as_bytes()).ok()??;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Some((text(membership.controllers), text(membership.path)))
    };
    for (line, controllers, path) in [
        ("0::/", "", "/"),
        ("0::/Example", "", "/Example"),
        ("0::/system.slice/app.service", "", "/system.slice/app.service"),
        ("1:cpu:/", "cpu", "/"),
        ("2:cpu,cpuacct:/app", "cpu,cpuacct", "/app"),
        ("9:name=systemd:/x", "name=systemd", "/x"),
        ("7:pids:/k8s.slice:cri-containerd:8a9b", "pids", "/k8s.slice:cri-containerd:8a9b"),
    ] {
        assert_eq!(parse(line), Some((controllers.to_owned(), path.to_owned())), "{line}");
    }
    for line in
        ["", "1::/", "2::/group", "0:cpu:/", "3:cpu", "x:cpu:/", ":cpu:/", "1:cpu:app", "0::"]
    {
        assert_eq!(parse(line), None, "{line}");
    }
}

#[test]
fn lines_of_mountinfo() {
    let parse = |line: &str| match parse_mount(line.as_bytes()) {
        Ok(mount) => mount.map(|mount| mount.filesystem),
        Err(Malformed) => None,
    };
    for (line, filesystem) in [
        ("1 0 252:0 / / rw,noatime - ext4 /dev/dm-0 rw", Filesystem::Other),
        ("31 23 0:24 / /m rw - cgroup2 cgroup rw", Filesystem::V2),
        ("31 23 0:24 / /m rw - cgroup2 cgroup", Filesystem::V2),
        ("31 23 0:24 / /m rw shared:1 - cgroup2 cgroup rw", Filesystem::V2),
        ("31 23 0:24 / /m rw shared:1 master:2 - cgroup2 cgroup rw", Filesystem::V2),
        ("31 23 0:24 /x /m rw - cgroup cgroup rw,pids", Filesystem::V1(b"rw,pids".to_vec())),
        (
            "40 23 0:9 / /mnt/c rw - 9p C:\\134 rw,dirsync,aname=drvfs;path=C:\\;a b;c",
            Filesystem::Other,
        ),
        ("50 23 0:4 net:[4026532281] /run/netns/n rw - nsfs nsfs rw", Filesystem::Other),
        ("60 23 0:5 / /proc/meminfo rw - fuse.lxcfs lxcfs rw", Filesystem::Other),
    ] {
        assert_eq!(parse(line), Some(filesystem), "{line}");
    }
    for line in [
        "x 23 0:24 / /m rw - cgroup2 cgroup rw",
        "31 y 0:24 / /m rw - cgroup2 cgroup rw",
        "31 23 0:24 / /m rw cgroup2 cgroup rw",
        "31 23 0:24 / - cgroup2 cgroup rw",
        "31 23 0:24 / /m rw -",
        "31 23 0:24 / /m rw - cgroup2",
        "31 23 0:24 / /m rw - cgroup cgroup",
        "garbage",
    ] {
        assert_eq!(parse(line), None, "{line}");
    }
}

#[test]
fn controllers_are_found_by_their_exact_name_in_any_order() {
    let layout = Layout::new(
        Some(b"2:cpuacct,cpu:/a\n1:memory,cpuacct,block:/b\n"),
        Some(
            b"30 20 0:26 / /one rw - cgroup cgroup rw,cpuacct\n\
              31 20 0:26 / /two rw - cgroup cgroup rw,cpuacct,cpu\n",
        ),
    );
    assert_eq!(layout.cpu.unwrap().levels, [PathBuf::from("/two/a"), PathBuf::from("/two")]);
    assert_eq!(layout.memory, None);
    assert_eq!(layout.cpuset, None);
}

#[test]
fn the_last_mount_that_shows_the_group_counts() {
    let mount = |root: &str, point: &str| format!("30 20 0:26 {root} {point} rw - cgroup2 c rw\n");
    let own = |mounts: &[String]| {
        let layout = Layout::new(Some(b"0::/"), Some(mounts.concat().as_bytes()));
        layout.memory.unwrap().levels.first().unwrap().display().to_string()
    };
    assert_eq!(own(&[mount("/", "/first"), mount("/", "/last")]), "/last");
    assert_eq!(own(&[mount("/", "/own"), mount("/../..", "/host")]), "/own");
    assert_eq!(own(&[mount("/..", "/first"), mount("/../..", "/last")]), "/last");
}

#[test]
fn a_mount_that_another_covers_is_not_the_one() {
    let own = |mounts: &[&str]| {
        let root = "1 1 0:1 / / rw - overlay o rw\n";
        let mounts = format!("{root}{}\n", mounts.join("\n"));
        let layout = Layout::new(Some(b"0::/x"), Some(mounts.as_bytes()));
        let levels = layout.memory.map(|group| group.levels).unwrap_or_default();
        levels.iter().map(|level| level.display().to_string()).collect::<Vec<_>>()
    };
    let (usual, bound) = ("3 1 0:3 / /usual r - cgroup2 c r", "4 1 0:3 / /m/g r - cgroup2 c r");
    for (mounts, expected) in [
        (&[usual, bound][..], &["/m/g/x", "/m/g"][..]),
        // On a directory above, on the point itself, on the group's directory.
        (&[usual, bound, "5 1 0:4 / /m r - tmpfs t r"], &["/usual/x", "/usual"]),
        (&[usual, bound, "5 4 0:4 / /m/g r - tmpfs t r"], &["/usual/x", "/usual"]),
        (&[usual, bound, "5 4 0:4 / /m/g/x r - tmpfs t r"], &["/usual/x", "/usual"]),
        // The mount above was there first, whatever stands first.
        (
            &[usual, "5 1 0:4 / /m r - tmpfs t r", "4 5 0:3 / /m/g r - cgroup2 c r"],
            &["/m/g/x", "/m/g"],
        ),
        // Beside it, and what only begins alike.
        (&[usual, bound, "5 1 0:4 / /m/gg r - tmpfs t r"], &["/m/g/x", "/m/g"]),
        // Where all are covered the last one is as good as any.
        (&[usual, bound, "5 1 0:4 / / r - tmpfs t r"], &["/m/g/x", "/m/g"]),
    ] {
        assert_eq!(own(mounts), expected, "{mounts:?}");
    }
    // What no kernel writes has an end, too.
    own(&[usual, bound, "1 4 0:4 / / r - tmpfs t r", "4 1 0:4 / / r - tmpfs t r"]);
}

#[test]
fn ancestors_come_from_a_mount_that_shows_more() {
    let mountinfo = "30 20 0:26 / /host rw - cgroup c rw,memory\n\
                     31 20 0:26 /pod /part rw - cgroup c rw,memory\n\
                     32 20 0:26 /pod/app /own rw - cgroup c rw,memory\n";
    let layout = Layout::new(Some(b"5:memory:/pod/app/x"), Some(mountinfo.as_bytes()));
    let expected = ["/own/x", "/own", "/host/pod", "/host"].map(PathBuf::from);
    assert_eq!(layout.memory.unwrap().levels, expected);
}

#[test]
fn names_are_bytes() {
    let layout =
        Layout::new(Some(b"0::/caf\xe9"), Some(b"30 20 0:26 / /m\xff rw - cgroup2 c rw\n"));
    let own = layout.memory.unwrap().levels.remove(0);
    assert_eq!(own.as_os_str().as_bytes(), b"/m\xff/caf\xe9");
    assert_eq!(layout.skipped, Skipped::default());
}

#[test]
fn a_path_that_the_kernel_could_not_have_is_skipped() {
    let long = "/a".repeat(LONGEST_PATH / 2);
    let layout = Layout::new(
        Some(format!("0::{long}\n0::/short\n").as_bytes()),
        Some(
            format!("30 20 0:26 / /m rw - cgroup2 c rw\n31 20 0:26 / {long} rw - cgroup2 c rw")
                .as_bytes(),
        ),
    );
    assert_eq!(layout.memory.unwrap().levels, [PathBuf::from("/m/short"), PathBuf::from("/m")]);
    assert_eq!(layout.skipped, Skipped { cgroup: 1, mountinfo: 1 });
}
