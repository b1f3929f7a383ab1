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

/// Of more mounts than these that show one group nobody needs to know.
const MOUNTS_COMPARED: usize = 16;

/// Mounts upon mounts on the way to a file. Nobody has so many; whoever writes
/// that a mount is below itself has no end of them.
const MOUNTS_DEEP: usize = 64;

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
    /// The process has left the cgroup namespace: no mount shows its group.
    pub(super) is_outside: bool,
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
            mounts.iter().flatten().any(|mount| mount.point == MEMINFO.as_bytes());
        let mounts = match (mounts, &memberships) {
            (Some(mounts), _) => mounts,
            (None, Some(memberships)) => usual_mounts(memberships),
            (None, None) => Vec::new(),
        };
        let mut is_outside = false;
        let mut placed = |placed: Option<Placed>| {
            let Placed { group, is_outside: this_is_outside } = placed?;
            is_outside |= this_is_outside;
            Some(group)
        };
        let group = |controller| find_group(controller, memberships.as_deref(), &mounts);
        let [cpu, cpuset, memory, pids] = CONTROLLERS.map(|controller| placed(group(controller)));
        let figures = |placed: Option<Placed>| placed.map(|placed| placed.group);
        let cpuacct = figures(group(CPUACCT));
        let unified = figures(find_unified(memberships.as_deref(), &mounts));
        Self {
            kind: kind_of(&mounts),
            cpu,
            cpuset,
            memory,
            pids,
            cpuacct,
            unified,
            meminfo_is_covered,
            is_guessed,
            is_outside,
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
    /// No cgroups, but it may cover some.
    Other,
}

struct Mount {
    id: u64,
    /// The mount that it is mounted on.
    parent: u64,
    /// What of the file system is shown, as seen from the cgroup namespace.
    root: Vec<u8>,
    point: Vec<u8>,
    filesystem: Filesystem,
}

/// One line of `/proc/self/mountinfo` (man 5 proc).
fn parse_mount(line: &[u8]) -> Result<Option<Mount>, Malformed> {
    let mut fields = line.split(|byte| *byte == b' ');
    let (Some(id), Some(parent)) = (fields.next().and_then(number), fields.next().and_then(number))
    else {
        return Err(Malformed);
    };
    let _device = fields.next();
    let (Some(root), Some(point), Some(_options)) = (fields.next(), fields.next(), fields.next())
    else {
        return Err(Malformed);
    };
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
        _ => Filesystem::Other,
    };
    let root = if filesystem == Filesystem::Other { Vec::new() } else { unescape(root) };
    let mount = Mount { id, parent, root, point: unescape(point), filesystem };
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
        id: 0,
        parent: 0,
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
        Filesystem::V2 | Filesystem::Other => false,
    });
    let has_v2 = mounts.iter().any(|mount| mount.filesystem == Filesystem::V2);
    match (has_v1, has_v2) {
        (true, true) => CgroupKind::Hybrid,
        (true, false) => CgroupKind::V1,
        (false, true) => CgroupKind::V2,
        (false, false) => CgroupKind::None,
    }
}

struct Placed {
    group: Group,
    /// See `Layout::is_outside`.
    is_outside: bool,
}

/// The kernel attaches a controller to one hierarchy only: where v1 has it, v2
/// does not.
fn find_group(
    controller: &str,
    memberships: Option<&[Membership]>,
    mounts: &[Mount],
) -> Option<Placed> {
    let controller = controller.as_bytes();
    let has_it = |mount: &Mount| match &mount.filesystem {
        Filesystem::V1(options) => names(options).any(|name| name == controller),
        Filesystem::V2 | Filesystem::Other => false,
    };
    let place_v1 = |path| place(Version::V1, path, mounts, has_it);
    let Some(known) = memberships else {
        // Which group is ours cannot be known; in a container it is the root.
        return place_v1(b"/").or_else(|| find_unified(memberships, mounts));
    };
    let in_v1 = |membership: &&Membership| names(membership.controllers).any(|n| n == controller);
    match known.iter().find(in_v1) {
        Some(membership) => place_v1(membership.path),
        None => find_unified(memberships, mounts),
    }
}

fn find_unified(memberships: Option<&[Membership]>, mounts: &[Mount]) -> Option<Placed> {
    let path = match memberships {
        Some(memberships) => memberships.iter().find(|membership| membership.is_v2())?.path,
        None => b"/",
    };
    place(Version::V2, path, mounts, |mount| mount.filesystem == Filesystem::V2)
}

/// Where the group `path` is, among the mounts that show its hierarchy.
fn place(
    version: Version,
    path: &[u8],
    mounts: &[Mount],
    shows_hierarchy: impl Fn(&Mount) -> bool,
) -> Option<Placed> {
    let hierarchy = || mounts.iter().rev().filter(|mount| shows_hierarchy(mount));
    let shown = |mount| Some((mount, levels(mount, &below(&mount.root, path)?)));
    let mut shown: Vec<_> = hierarchy().filter_map(shown).take(MOUNTS_COMPARED).collect();
    let is_shown = !shown.is_empty();
    if !is_shown {
        // A group outside of every mount is that of a container that was given
        // its own group as the root: what it may see of itself is the mount point.
        let points = hierarchy().map(|mount| (mount, levels(mount, &[])));
        shown = points.take(MOUNTS_COMPARED).collect();
    }
    if shown.len() > 1 && shown.iter().any(|(mount, levels)| is_reached(mounts, mount, levels)) {
        shown.retain(|(mount, levels)| is_reached(mounts, mount, levels));
    }
    // The last one, as of mounts on one point; and from one that shows more, such
    // as the host's in a monitoring agent, the ancestors that this one has not.
    let mut shown = shown.into_iter().map(|(_, levels)| levels);
    let mut levels = shown.next()?;
    if is_shown && let Some(more) = shown.max_by_key(Vec::len) {
        levels.extend(more.into_iter().skip(levels.len()));
    }
    let is_outside = !is_shown && (path == b"/.." || path.starts_with(b"/../"));
    Some(Placed { group: Group { version, levels }, is_outside })
}

/// The directories from the group that the names lead to up to the mount point.
fn levels(mount: &Mount, names: &[&[u8]]) -> Vec<PathBuf> {
    let mut level = PathBuf::from(OsStr::from_bytes(&mount.point));
    let mut levels = vec![level.clone()];
    for name in names {
        level.push(OsStr::from_bytes(name));
        levels.push(level.clone());
    }
    levels.reverse();
    levels
}

/// Whether the way to the first of the levels ends in that mount: another may
/// cover it.
fn is_reached(mounts: &[Mount], mount: &Mount, levels: &[PathBuf]) -> bool {
    let Some(own) = levels.first() else { return false };
    reached(mounts, own.as_os_str().as_bytes()).is_some_and(|end| std::ptr::eq(end, mount))
}

/// The mount in which the way from the root to a path ends: at each name it goes
/// on in whatever is mounted there (man 7 path_resolution).
fn reached<'a>(mounts: &'a [Mount], path: &[u8]) -> Option<&'a Mount> {
    let mut at = mounts.iter().find(|mount| mount.point == b"/")?;
    for _ in 0..MOUNTS_DEEP {
        let is_on_the_way = |mount: &&Mount| {
            mount.parent == at.id && mount.id != at.id && rest_below(&mount.point, path).is_some()
        };
        let Some(next) =
            mounts.iter().rev().filter(is_on_the_way).min_by_key(|mount| mount.point.len())
        else {
            return Some(at);
        };
        at = next;
    }
    None
}

/// The names that lead from a mount's root down to `path`, if it is below.
fn below<'a>(root: &[u8], path: &'a [u8]) -> Option<Vec<&'a [u8]>> {
    let rest = rest_below(root, path)?;
    let names: Vec<_> = rest.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).collect();
    let is_plain = names.iter().all(|name| *name != b"." && *name != b"..");
    is_plain.then_some(names)
}

/// What follows `root` in `path`: empty or from a slash on. "/docker" is no
/// ancestor of "/docker2".
fn rest_below<'a>(root: &[u8], path: &'a [u8]) -> Option<&'a [u8]> {
    let root = root.strip_suffix(b"/").unwrap_or(root);
    path.strip_prefix(root).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

fn is_number(field: &[u8]) -> bool {
    !field.is_empty() && field.iter().all(u8::is_ascii_digit)
}

fn number(field: &[u8]) -> Option<u64> {
    std::str::from_utf8(field).ok().filter(|_| is_number(field))?.parse().ok()
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
