//! The child's traffic, as the looks show it during a stop.
//!
//! Owns what lasts from one look to the next. What a look means is told by
//! `policy::traffic`, when to take one by `policy::lifecycle`.

use std::cell::Cell;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Instant;

use crate::log::events;
use crate::policy::traffic::{Look, Observer, Ports};
use crate::system::sockets::Watch;
use crate::system::tree;

/// How many connections castoff's own endpoints have accepted: no traffic of
/// the child's.
pub(crate) type Accepted = Rc<Cell<u64>>;

pub(crate) struct Traffic {
    ports: Ports,
    own_port: Option<u16>,
    accepted: Accepted,
    proc_root: PathBuf,
    /// A drain waits for it: that it cannot be seen is worth a warning.
    is_waited_for: bool,
    /// Made at the first look: most of a life needs none.
    watch: Option<Watch>,
    observer: Observer,
    was_told: bool,
}

impl Traffic {
    /// `own_port` is that of castoff's endpoints.
    pub(crate) fn new(
        ports: Ports,
        own_port: Option<u16>,
        accepted: Accepted,
        proc_root: PathBuf,
        is_waited_for: bool,
    ) -> Self {
        Self {
            ports,
            own_port,
            accepted,
            proc_root,
            is_waited_for,
            watch: None,
            observer: Observer::default(),
            was_told: false,
        }
    }

    /// Finds out which ports the tree listens on, and who is there already: the
    /// child may be told next. Without a usable /proc, or when that takes longer
    /// than until then, no port is found, and the traffic remains unknown.
    pub(super) fn learn_ports(&mut self, until: Instant) {
        if let Some(pids) = tree::pids(&self.proc_root, until) {
            self.watch().learn(&pids, until);
        }
        self.observe(false);
    }

    /// `None`: it cannot be seen. Where a drain waits for it that is logged, once.
    /// A drain also wants to know of connections that only may have been with the
    /// child.
    pub(super) fn look(&mut self, is_drain: bool) -> Option<Look> {
        let look = self.observe(is_drain);
        let matters = is_drain && self.is_waited_for && look.is_none();
        if matters && !std::mem::replace(&mut self.was_told, true) {
            events::traffic_unknown("neither sock_diag nor /proc tells of the child's sockets");
        }
        look
    }

    fn observe(&mut self, is_drain: bool) -> Option<Look> {
        let accepted = self.accepted.get();
        let opens = self.watch().count(accepted);
        let with_neighbours = is_drain && self.observer.wants_neighbours(opens);
        let snapshot = self.watch().look(opens, with_neighbours);
        self.observer.observe(snapshot, Instant::now())
    }

    fn watch(&mut self) -> &mut Watch {
        self.watch.get_or_insert_with(|| {
            let proc_root = tree::own_proc(&self.proc_root);
            let proc_root = proc_root.unwrap_or_else(|| self.proc_root.clone());
            Watch::new(self.ports.clone(), self.own_port, proc_root)
        })
    }
}
