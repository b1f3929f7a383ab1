//! JSON as castoff writes it for programs: `/statusz` and `castoff explain`.
//!
//! Owns the syntax, and the form of what both of them tell: limits and timeline.
//! What is told is decided elsewhere. A tree of serde_json's values would cost
//! more code than all the pages, and lose the order.

use std::fmt::{self, Display, Write as _};

use crate::policy::limits::{Limit, Limits};
use crate::policy::timeline::Step;

pub(crate) const NULL: &str = "null";

/// One object, so far.
pub(crate) struct Json {
    text: String,
}

impl Json {
    pub(crate) fn new() -> Self {
        let mut text = String::with_capacity(2048);
        text.push('{');
        Self { text }
    }

    /// The whole, with a newline at its end.
    pub(crate) fn end(mut self) -> String {
        self.text.push_str("}\n");
        self.text
    }

    /// Begins an object or an array; elements of an array have no name.
    pub(crate) fn open(&mut self, name: &str, bracket: char) {
        self.name(name);
        self.text.push(bracket);
    }

    pub(crate) fn close(&mut self, bracket: char) {
        self.text.push(bracket);
    }

    /// A number, a boolean, null, or what is JSON already.
    pub(crate) fn value(&mut self, name: &str, value: &dyn Display) {
        self.name(name);
        // Writing to a String cannot fail.
        let _ = write!(self.text, "{value}");
    }

    /// A string, whatever it holds, or null.
    pub(crate) fn text(&mut self, name: &str, text: Option<&str>) {
        self.value(name, &OrNull(text.and_then(|text| serde_json::to_string(text).ok())));
    }

    /// Names are castoff's own and need no escape.
    fn name(&mut self, name: &str) {
        if !self.text.ends_with(['{', '[']) {
            self.text.push(',');
        }
        if !name.is_empty() {
            self.text.extend(["\"", name, "\":"]);
        }
    }

    /// The members of an object: each limit or null, and the file and level of each.
    pub(crate) fn limits(&mut self, limits: &Limits) {
        let Limits { cgroup, cpus, memory_bytes, pids, levels, .. } = limits;
        let finite = value(cpus).filter(|cpus| cpus.is_finite());
        self.text("cgroup", Some(cgroup.as_str()));
        self.value("cpus", &OrNull(finite));
        self.value("memory_bytes", &OrNull(value(memory_bytes)));
        self.value("pids", &OrNull(value(pids)));
        self.open("sources", '{');
        self.text("cpus", source(cpus));
        self.text("memory_bytes", source(memory_bytes));
        self.text("pids", source(pids));
        self.close('}');
        self.open("levels", '{');
        self.value("cpus", &OrNull(levels.cpus));
        self.value("memory_bytes", &OrNull(levels.memory_bytes));
        self.value("pids", &OrNull(levels.pids));
        self.close('}');
    }

    pub(crate) fn timeline(&mut self, steps: &[Step]) {
        self.open("timeline", '[');
        for Step { at, phase, what } in steps {
            self.open("", '{');
            self.value("at_ms", &at.as_millis());
            self.text("phase", Some(phase.as_str()));
            self.text("what", Some(what));
            self.close('}');
        }
        self.close(']');
    }
}

/// A number, or null when there is none.
pub(crate) struct OrNull<T>(pub(crate) Option<T>);

impl<T: Display> Display for OrNull<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(value) => value.fmt(f),
            None => f.write_str(NULL),
        }
    }
}

fn value<T: Copy>(limit: &Option<Limit<T>>) -> Option<T> {
    limit.as_ref().map(|limit| limit.value)
}

fn source<T>(limit: &Option<Limit<T>>) -> Option<&str> {
    limit.as_ref().map(|limit| limit.source.as_str())
}
