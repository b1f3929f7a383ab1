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

pub(super) struct Traffic {
    ports: Ports,
    own_port: Option<u16>,
    accepted: Accepted,
    proc_root: PathBuf,
    /// Made at the first look: most of a life needs none.
    watch: Option<Watch>,
    observer: Observer,
    was_told: bool,
}

impl Traffic {
    pub(super) fn new(
        ports: Ports,
        own_port: Option<u16>,
        accepted: Accepted,
        proc_root: PathBuf,
    ) -> Self {
        let (watch, observer) = (None, Observer::default());
        Self { ports, own_port, accepted, proc_root, watch, observer, was_told: false }
    }

    /// Finds out which ports the tree listens on. Without a usable /proc none
    /// is found, and the traffic remains unknown.
    pub(super) fn learn_ports(&mut self) {
        if let Some(pids) = tree::pids(&self.proc_root) {
            self.watch().learn(&pids);
        }
    }

    /// `None`: it cannot be seen. Where that matters it is logged, once.
    pub(super) fn look(&mut self, matters: bool) -> Option<Look> {
        let accepted = self.accepted.get();
        let snapshot = self.watch().look(accepted);
        let look = self.observer.observe(snapshot, Instant::now());
        if matters && look.is_none() && !std::mem::replace(&mut self.was_told, true) {
            events::traffic_unknown("neither sock_diag nor /proc tells of the child's sockets");
        }
        look
    }

    fn watch(&mut self) -> &mut Watch {
        self.watch.get_or_insert_with(|| {
            let proc_root = tree::own_proc(&self.proc_root);
            let proc_root = proc_root.unwrap_or_else(|| self.proc_root.clone());
            Watch::new(self.ports.clone(), self.own_port, proc_root)
        })
    }
}
