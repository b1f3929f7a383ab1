//! Whole machines, made up: hierarchies, groups with limits, a cgroup namespace
//! and mounts upon mounts, as a kernel would show them. What is found must be the
//! lowest limit of those groups that some path leads to.

use proptest::collection::vec;
use proptest::option;

use super::*;

/// The controllers that have a v1 hierarchy of their own, as it is mounted.
const CONTROLLERS: [&str; 4] = ["cpu,cpuacct", "cpuset", "memory", "pids"];
const CPU: usize = 0;
const CPUSET: usize = 1;
const MEMORY: usize = 2;
const PIDS: usize = 3;
const UNIFIED: usize = 4;
const NAMES: [&str; 5] = ["a", "a:b", "x y", "pod.slice", "a (deleted)"];
const POINTS: [&str; 8] = [
    "/sys",
    "/sys/fs/cgroup",
    "/sys/fs/cgroup/memory",
    "/sys/fs/cgroup/cpu,cpuacct",
    "/sys/fs/cgroup/unified",
    "/host",
    "/host/sys/fs/cgroup",
    "/mnt\\\tx",
];
/// The limit of every group that is none of ours.
const FOREIGN: u64 = 1;
const ONLINE: u32 = 8;

/// What is told of one group.
#[derive(Clone, Debug)]
struct Limited {
    quota: Option<u64>,
    cpus: Option<u64>,
    memory: Option<u64>,
    pids: Option<u64>,
}

/// A hierarchy, of which only the groups from the root to our own matter.
#[derive(Clone, Debug)]
struct Hierarchy {
    own: Vec<&'static str>,
    /// The root of the cgroup namespace: so many names of `own`, then a foreign
    /// one if the process has left it.
    namespace: usize,
    has_left: bool,
    /// From the root on; beyond the own group's depth they are not used.
    limits: Vec<Limited>,
}

#[derive(Clone, Debug)]
struct Mounted {
    point: &'static str,
    /// `None`: something that is no cgroup.
    hierarchy: Option<usize>,
    /// So many names of the own path; then a foreign one, if it shows none of ours.
    root: usize,
    is_foreign: bool,
    parent: usize,
}

#[derive(Clone, Debug)]
struct World {
    /// In the order of `CONTROLLERS`, and the unified one.
    hierarchies: Vec<Hierarchy>,
    is_v1: Vec<bool>,
    mounts: Vec<Mounted>,
    affinity: u32,
    tells_hierarchical_limit: bool,
    has_optional_fields: bool,
}

impl Hierarchy {
    fn namespace_root(&self) -> Vec<&'static str> {
        let mut names = self.own[..self.namespace.min(self.own.len())].to_vec();
        names.extend(self.has_left.then_some("left"));
        names
    }

    /// As `cgroup_namespaces(7)` shows it to us.
    fn shown(&self, names: &[&str]) -> String {
        let namespace = self.namespace_root();
        let common = namespace.iter().zip(names).take_while(|(a, b)| a == b).count();
        let up = "/..".repeat(namespace.len() - common);
        let down: String = names[common..].iter().map(|name| format!("/{name}")).collect();
        Some(up + &down).filter(|path| !path.is_empty()).unwrap_or_else(|| "/".to_owned())
    }
}

impl World {
    fn root_of(&self, mount: &Mounted) -> Vec<&'static str> {
        let Some(hierarchy) = mount.hierarchy else { return Vec::new() };
        let own = &self.hierarchies[hierarchy].own;
        let mut names = own[..mount.root.min(own.len())].to_vec();
        names.extend(mount.is_foreign.then_some("foreign"));
        names
    }

    /// Mounts each at what the one before has left visible.
    fn mount_all(mut self) -> Self {
        let all = std::mem::take(&mut self.mounts);
        self.mounts.push(Mounted {
            point: "/",
            hierarchy: None,
            root: 0,
            is_foreign: false,
            parent: usize::MAX,
        });
        for mounted in all {
            let is_mountable = mounted.hierarchy.is_none_or(|at| at == UNIFIED || self.is_v1[at]);
            if is_mountable {
                let parent = self.walk(mounted.point);
                self.mounts.push(Mounted { parent, ..mounted });
            }
        }
        self
    }

    /// The mount that a path is in, name by name.
    fn walk(&self, path: &str) -> usize {
        let mut at = 0;
        let mut so_far = String::new();
        for name in path.split('/').filter(|name| !name.is_empty()) {
            so_far = format!("{so_far}/{name}");
            while let Some(next) = (0..self.mounts.len())
                .find(|n| self.mounts[*n].parent == at && self.mounts[*n].point == so_far)
            {
                at = next;
            }
        }
        at
    }

    fn cgroup(&self) -> String {
        let mut text = String::new();
        for (at, controllers) in CONTROLLERS.iter().enumerate().filter(|(at, _)| self.is_v1[*at]) {
            let hierarchy = &self.hierarchies[at];
            text += &format!("{}:{controllers}:{}\n", at + 1, hierarchy.shown(&hierarchy.own));
        }
        let unified = &self.hierarchies[UNIFIED];
        text + &format!("0::{}\n", unified.shown(&unified.own))
    }

    fn mountinfo(&self) -> String {
        let escaped =
            |path: &str| path.replace('\\', "\\134").replace(' ', "\\040").replace('\t', "\\011");
        let optional = if self.has_optional_fields { " shared:7 master:3" } else { "" };
        let mut text = String::new();
        for (at, mount) in self.mounts.iter().enumerate() {
            let (root, filesystem) = match mount.hierarchy {
                None => ("/".to_owned(), "tmpfs tmpfs rw".to_owned()),
                Some(at) => {
                    let root = self.hierarchies[at].shown(&self.root_of(mount));
                    let options = CONTROLLERS.get(at).map(|names| format!("cgroup c rw,{names}"));
                    (root, options.unwrap_or_else(|| "cgroup2 c rw,nsdelegate".to_owned()))
                }
            };
            let (id, parent) = (at + 20, mount.parent.wrapping_add(20));
            let (root, point) = (escaped(&root), escaped(mount.point));
            text += &format!("{id} {parent} 0:30 {root} {point} rw{optional} - {filesystem}\n");
        }
        text
    }

    fn read(&self, path: &str) -> Option<String> {
        match path {
            CGROUP => return Some(self.cgroup()),
            MOUNTINFO => return Some(self.mountinfo()),
            MEMINFO => return Some("MemTotal: 1000000 kB\n".to_owned()),
            STATUS => return Some(format!("Cpus_allowed_list:\t0-{}\n", self.affinity - 1)),
            _ => {}
        }
        let mount = &self.mounts[self.walk(path)];
        let at = mount.hierarchy?;
        let rest = path.strip_prefix(mount.point).expect("the walk ended there");
        let mut names = self.root_of(mount);
        names.extend(rest.split('/').filter(|name| !name.is_empty()).map(|name| {
            // The lifetime of the names is that of the program; those of files differ.
            NAMES.into_iter().find(|known| *known == name).unwrap_or("")
        }));
        names.pop();
        let file = path.rsplit('/').next()?;
        let hierarchy = &self.hierarchies[at];
        let limits = match hierarchy.own.starts_with(&names) {
            true => hierarchy.limits[names.len()].clone(),
            false => Limited {
                quota: Some(FOREIGN),
                cpus: Some(FOREIGN),
                memory: Some(FOREIGN),
                pids: Some(FOREIGN),
            },
        };
        let is_of =
            |controller: usize| at == if self.is_v1[controller] { controller } else { UNIFIED };
        let line = |limit: u64| format!("{limit}\n");
        match (file, self.is_v1[CPU], self.is_v1[CPUSET], self.is_v1[MEMORY]) {
            ("cpu.max", false, ..) if is_of(CPU) => {
                limits.quota.map(|cpus| format!("{} 1000\n", cpus * 500))
            }
            ("cpu.cfs_quota_us", true, ..) if is_of(CPU) => {
                limits.quota.map(|cpus| line(cpus * 500))
            }
            ("cpu.cfs_period_us", true, ..) if is_of(CPU) => Some("1000\n".to_owned()),
            ("cpuset.cpus.effective", _, false, _) | ("cpuset.effective_cpus", _, true, _)
                if is_of(CPUSET) =>
            {
                limits.cpus.map(|cpus| format!("0-{}\n", cpus - 1))
            }
            ("memory.max", .., false) | ("memory.limit_in_bytes", .., true) if is_of(MEMORY) => {
                limits.memory.map(line)
            }
            ("memory.stat", .., true) if is_of(MEMORY) && self.tells_hierarchical_limit => {
                let groups = hierarchy.limits.iter().take(names.len() + 1);
                let lowest = groups.filter_map(|group| group.memory).min();
                Some(format!("cache 1\nhierarchical_memory_limit {}\n", lowest.unwrap_or(u64::MAX)))
            }
            ("pids.max", ..) if is_of(PIDS) => limits.pids.map(line),
            _ => None,
        }
    }

    /// Our groups that some path leads to, own first. `None`: ours is not among
    /// them, though there are others, or no file tells the names that lead to it,
    /// as in a mount of what is above the namespace.
    fn visible(&self, controller: usize) -> Option<Vec<&Limited>> {
        let at = if self.is_v1[controller] { controller } else { UNIFIED };
        let Hierarchy { own, namespace, limits, .. } = &self.hierarchies[at];
        let depth = own.len();
        let of_it = |mount: &&Mounted| mount.hierarchy == Some(at);
        if !self.mounts.iter().any(|mount| of_it(&mount)) {
            return Some(Vec::new());
        }
        let shows = |(nth, mount): &(usize, &Mounted)| {
            let is_told = mount.root.min(depth) >= *namespace.min(&depth);
            of_it(mount) && !mount.is_foreign && is_told && self.walk(mount.point) == *nth
        };
        let highest = self.mounts.iter().enumerate().filter(shows).map(|(_, mount)| mount.root);
        let highest = highest.min()?.min(depth);
        Some(limits[highest..=depth].iter().rev().collect())
    }
}

fn limited() -> impl Strategy<Value = Limited> {
    let of = || option::of(2_u64..64);
    (of(), option::of(1..=u64::from(ONLINE)), of(), of())
        .prop_map(|(quota, cpus, memory, pids)| Limited { quota, cpus, memory, pids })
}

fn hierarchies() -> impl Strategy<Value = Hierarchy> {
    let own = vec(prop::sample::select(&NAMES[..]), 0..4);
    (own, 0_usize..4, prop::bool::weighted(0.1), vec(limited(), 4)).prop_map(
        |(own, namespace, has_left, limits)| Hierarchy { own, namespace, has_left, limits },
    )
}

fn mounts() -> impl Strategy<Value = Mounted> {
    let point = prop::sample::select(&POINTS[..]);
    (point, option::weighted(0.8, 0_usize..5), 0_usize..4, prop::bool::weighted(0.2)).prop_map(
        |(point, hierarchy, root, is_foreign)| Mounted {
            point,
            hierarchy,
            root,
            is_foreign,
            parent: 0,
        },
    )
}

fn worlds() -> impl Strategy<Value = World> {
    let parts = (vec(hierarchies(), 5), vec(any::<bool>(), 4), vec(mounts(), 0..8));
    (parts, 1..=ONLINE, any::<bool>(), any::<bool>()).prop_map(
        |((hierarchies, is_v1, mounts), affinity, tells, optional)| {
            let world = World {
                hierarchies,
                is_v1,
                mounts,
                affinity,
                tells_hierarchical_limit: tells,
                has_optional_fields: optional,
            };
            world.mount_all()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]
    #[test]
    fn the_lowest_limit_of_the_visible_groups_is_found(world in worlds()) {
        let read = |path: &Path| Ok(world.read(path.to_str().expect("text")).map(String::into_bytes));
        let found = find(Some(ONLINE), read);
        assert_sound(&found)?;
        let limits = &found.limits;
        if let Some(groups) = world.visible(MEMORY) {
            let mut lowest = groups.iter().filter_map(|group| group.memory).min();
            if world.is_v1[MEMORY] && world.tells_hierarchical_limit && !groups.is_empty() {
                let Hierarchy { own, limits, .. } = &world.hierarchies[MEMORY];
                lowest = limits[..=own.len()].iter().filter_map(|group| group.memory).min();
            }
            prop_assert_eq!(limits.memory_bytes.as_ref().map(|limit| limit.value), lowest);
        }
        if let Some(groups) = world.visible(PIDS) {
            let lowest = groups.iter().filter_map(|group| group.pids).min();
            prop_assert_eq!(limits.pids.as_ref().map(|limit| limit.value), lowest);
        }
        if let (Some(groups), Some(cpusets)) = (world.visible(CPU), world.visible(CPUSET)) {
            let quota = groups.iter().filter_map(|group| group.quota).min();
            let nearest = cpusets.iter().find_map(|group| group.cpus).unwrap_or(u64::MAX);
            let usable = nearest.min(u64::from(world.affinity));
            let usable_is_limit = quota.is_some() || usable < u64::from(ONLINE);
            let cpus = quota.map(|quota| quota as f64 / 2.0);
            let lowest = match (cpus, usable as f64) {
                (Some(cpus), usable) => Some(cpus.min(usable)),
                (None, usable) => usable_is_limit.then_some(usable),
            };
            prop_assert_eq!(limits.cpus.as_ref().map(|limit| limit.value), lowest);
            prop_assert_eq!(limits.affinity.map(u64::from), Some(usable));
        }
        // What is told as the source is there.
        for source in [&limits.memory_bytes, &limits.pids].into_iter().flatten() {
            prop_assert!(world.read(&source.source).is_some(), "{}", source.source);
        }
    }
}
