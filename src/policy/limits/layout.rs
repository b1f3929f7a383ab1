//! Where the cgroups of the process are: the text of `/proc/self/cgroup` and
//! `/proc/self/mountinfo` in, the directories of each controller out.
//!
//! A line that cannot be understood is left out and counted: it may belong to
//! something that is none of our business, and must never keep a service from
//! starting. Names are bytes here, as they are to the kernel.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::CgroupKind;

pub(crate) const CGROUP: &str = "/proc/self/cgroup";
pub(crate) const MOUNTINFO: &str = "/proc/self/mountinfo";
pub(crate) const MEMINFO: &str = "/proc/meminfo";

/// The kernel's `PATH_MAX`. A longer path has no files, but a level for each of
/// its names.
const LONGEST_PATH: usize = 4096;

/// Where cgroups are mounted unless somebody has moved them.
pub(crate) const USUAL_MOUNT: &str = "/sys/fs/cgroup";

const CONTROLLERS: [&str; 4] = ["cpu", "cpuset", "memory", "pids"];

/// v1's own controller for the time that was used; v2 counts it in any group.
const CPUACCT: &str = "cpuacct";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// One controller's directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) version: Version,
    /// The group of the process first, then each ancestor up to the mount
    /// point. Some may not exist.
    pub(crate) levels: Vec<PathBuf>,
}

/// The directories of the controllers that limit something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) kind: CgroupKind,
    pub(crate) cpu: Option<Group>,
    pub(crate) cpuset: Option<Group>,
    pub(crate) memory: Option<Group>,
    pub(crate) pids: Option<Group>,
    /// Where used CPU time is counted; it limits nothing.
    pub(crate) cpuacct: Option<Group>,
    /// The group in the hierarchy of v2, whether or not it has a controller.
    pub(crate) unified: Option<Group>,
    /// A mount such as lxcfs's stands in for the machine's own meminfo.
    pub(super) meminfo_is_covered: bool,
    /// Where the mounts are is a guess.
    pub(super) is_guessed: bool,
    /// Lines that could not be understood, by file.
    pub(super) skipped: Skipped,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Skipped {
    pub(super) cgroup: usize,
    pub(super) mountinfo: usize,
}

impl Layout {
    /// `None` stands for a file that could not be read.
    pub(super) fn new(cgroup: Option<&[u8]>, mountinfo: Option<&[u8]>) -> Self {
        let mut skipped = Skipped::default();
        let memberships =
            cgroup.map(|text| understood(text, Membership::parse, &mut skipped.cgroup));
        let mounts = mountinfo.map(|text| understood(text, parse_mount, &mut skipped.mountinfo));
        let is_guessed = mounts.is_none() && memberships.is_some();
        let meminfo_is_covered =
            mounts.iter().flatten().any(|mount| mount.filesystem == Filesystem::Meminfo);
        let mounts = match (mounts, &memberships) {
            (Some(mounts), _) => mounts,
            (None, Some(memberships)) => usual_mounts(memberships),
            (None, None) => Vec::new(),
        };
        let group = |controller| find_group(controller, memberships.as_deref(), &mounts);
        let [cpu, cpuset, memory, pids] = CONTROLLERS.map(group);
        let unified = find_unified(memberships.as_deref(), &mounts);
        Self {
            kind: kind_of(&mounts),
            cpu,
            cpuset,
            memory,
            pids,
            cpuacct: group(CPUACCT),
            unified,
            meminfo_is_covered,
            is_guessed,
            skipped,
        }
    }
}

/// A line that is not what its file should hold.
struct Malformed;

fn understood<'a, T>(
    text: &'a [u8],
    parse: fn(&'a [u8]) -> Result<Option<T>, Malformed>,
    skipped: &mut usize,
) -> Vec<T> {
    let mut items = Vec::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        match parse(line) {
            Ok(item) => items.extend(item),
            Err(Malformed) => *skipped += 1,
        }
    }
    items
}

/// One line of `/proc/self/cgroup`: `4:memory:/docker/x`, or `0::/x` for v2.
struct Membership<'a> {
    /// As the line has them, separated by commas; empty for v2.
    controllers: &'a [u8],
    path: &'a [u8],
}

impl<'a> Membership<'a> {
    fn parse(line: &'a [u8]) -> Result<Option<Self>, Malformed> {
        // Three fields at most: containerd's names have colons in them.
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let (Some(id), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            return Err(Malformed);
        };
        let is_v2 = id == b"0";
        let is_path = path.starts_with(b"/") && path.len() < LONGEST_PATH;
        if !is_number(id) || !is_path || is_v2 != controllers.is_empty() {
            return Err(Malformed);
        }
        Ok(Some(Self { controllers, path }))
    }

    fn is_v2(&self) -> bool {
        self.controllers.is_empty()
    }

    fn has_controller(&self) -> bool {
        has_controller(self.controllers)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Filesystem {
    /// With its super options, which name the controllers.
    V1(Vec<u8>),
    V2,
    /// No cgroup, but it covers `/proc/meminfo`.
    Meminfo,
}

struct Mount {
    /// What of the file system is shown, as seen from the cgroup namespace.
    root: Vec<u8>,
    point: Vec<u8>,
    filesystem: Filesystem,
}

/// One line of `/proc/self/mountinfo` (man 5 proc); `None` for a mount that is
/// of no interest.
fn parse_mount(line: &[u8]) -> Result<Option<Mount>, Malformed> {
    let mut fields = line.split(|byte| *byte == b' ');
    let ids = [fields.next(), fields.next()];
    let _device = fields.next();
    let (Some(root), Some(point), Some(_options)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(Malformed);
    };
    if !ids.into_iter().all(|id| id.is_some_and(is_number)) {
        return Err(Malformed);
    }
    // Any number of optional fields ends with a dash of its own.
    if !fields.any(|field| field == b"-") {
        return Err(Malformed);
    }
    let (Some(name), Some(_source)) = (fields.next(), fields.next()) else {
        return Err(Malformed);
    };
    let filesystem = match name {
        b"cgroup" => Filesystem::V1(fields.next().ok_or(Malformed)?.to_vec()),
        b"cgroup2" => Filesystem::V2,
        _ if point == MEMINFO.as_bytes() => Filesystem::Meminfo,
        _ => return Ok(None),
    };
    let mount = Mount { root: unescape(root), point: unescape(point), filesystem };
    if mount.point.len() < LONGEST_PATH { Ok(Some(mount)) } else { Err(Malformed) }
}

/// Undoes the kernel's `\040` for a space, and so on.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        match tail {
            [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..] if first == b'\\' => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => {
                plain.push(first);
                rest = tail;
            }
        }
    }
    plain
}

/// The mounts that most systems have, for when mountinfo cannot be read.
fn usual_mounts(memberships: &[Membership]) -> Vec<Mount> {
    let has_v1 = memberships.iter().any(Membership::has_controller);
    let mount = |below: &[u8], filesystem| Mount {
        root: b"/".to_vec(),
        point: [USUAL_MOUNT.as_bytes(), b"/", below].concat(),
        filesystem,
    };
    let usual = |membership: &Membership| match membership.controllers {
        // Beside v1 the unified hierarchy has no controllers as a rule, and it
        // is often not mounted.
        b"" => (!has_v1).then(|| mount(b"", Filesystem::V2)),
        controllers => Some(mount(controllers, Filesystem::V1(controllers.to_vec()))),
    };
    memberships.iter().filter_map(usual).collect()
}

fn kind_of(mounts: &[Mount]) -> CgroupKind {
    let has_v1 = mounts.iter().any(|mount| match &mount.filesystem {
        Filesystem::V1(options) => has_controller(options),
        Filesystem::V2 | Filesystem::Meminfo => false,
    });
    let has_v2 = mounts.iter().any(|mount| mount.filesystem == Filesystem::V2);
    match (has_v1, has_v2) {
        (true, true) => CgroupKind::Hybrid,
        (true, false) => CgroupKind::V1,
        (false, true) => CgroupKind::V2,
        (false, false) => CgroupKind::None,
    }
}

/// The kernel attaches a controller to one hierarchy only: where v1 has it, v2
/// does not.
fn find_group(
    controller: &str,
    memberships: Option<&[Membership]>,
    mounts: &[Mount],
) -> Option<Group> {
    let controller = controller.as_bytes();
    let v1_mounts = || {
        mounts.iter().filter(|mount| match &mount.filesystem {
            Filesystem::V1(options) => names(options).any(|name| name == controller),
            Filesystem::V2 | Filesystem::Meminfo => false,
        })
    };
    let Some(known) = memberships else {
        // Which group is ours cannot be known; in a container it is the root.
        return place(Version::V1, b"/", v1_mounts()).or_else(|| find_unified(memberships, mounts));
    };
    let in_v1 = |membership: &&Membership| names(membership.controllers).any(|n| n == controller);
    match known.iter().find(in_v1) {
        Some(membership) => place(Version::V1, membership.path, v1_mounts()),
        None => find_unified(memberships, mounts),
    }
}

fn find_unified(memberships: Option<&[Membership]>, mounts: &[Mount]) -> Option<Group> {
    let path = match memberships {
        Some(memberships) => memberships.iter().find(|membership| membership.is_v2())?.path,
        None => b"/",
    };
    place(Version::V2, path, mounts.iter().filter(|mount| mount.filesystem == Filesystem::V2))
}

fn place<'a>(
    version: Version,
    path: &[u8],
    mounts: impl DoubleEndedIterator<Item = &'a Mount> + Clone,
) -> Option<Group> {
    // Of several mounts the last one counts, since it covers the others; but
    // one that shows our group beats one that does not, such as the host's
    // cgroups mounted into the container of a monitoring agent.
    let shown = mounts.clone().rev().find_map(|mount| Some((mount, below(&mount.root, path)?)));
    // A group outside of every mount is that of a container that was given its
    // own group as the root: what it may see of itself is the mount point.
    let (mount, names) = shown.or_else(|| Some((mounts.last()?, Vec::new())))?;
    let mut level = PathBuf::from(OsStr::from_bytes(&mount.point));
    let mut levels = vec![level.clone()];
    for name in names {
        level.push(OsStr::from_bytes(name));
        levels.push(level.clone());
    }
    levels.reverse();
    Some(Group { version, levels })
}

/// The names that lead from a mount's root down to `path`, if it is below.
fn below<'a>(root: &[u8], path: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    let rest = path.strip_prefix(root)?;
    if !rest.is_empty() && !rest.starts_with(b"/") {
        return None; // "/docker" is no ancestor of "/docker2"
    }
    let names: Vec<_> = rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    let is_plain = names.iter().all(|name| *name != b"." && *name != b"..");
    is_plain.then_some(names)
}

fn is_number(field: &[u8]) -> bool {
    !field.is_empty() && field.iter().all(u8::is_ascii_digit)
}

fn names(list: &[u8]) -> impl Iterator<Item = &[u8]> {
    list.split(|byte| *byte == b',')
}

/// Whether a list names a controller that limits something. A v1 hierarchy of
/// `name=systemd` or `net_cls` says nothing about the version in use.
fn has_controller(list: &[u8]) -> bool {
    names(list).any(|name| CONTROLLERS.iter().any(|controller| controller.as_bytes() == name))
}

#[cfg(test)]
mod tests;
