//! What castoff set out to reach, and whether it did. Nothing fails by it.

use std::fmt;

use crate::table::Table;

/// A measured value and the most that it should be.
struct Target {
    what: &'static str,
    value: f64,
    most: f64,
    unit: &'static str,
}

/// The targets of the benches that were run.
#[derive(Default)]
pub(crate) struct Targets(Vec<Target>);

impl Targets {
    /// Notes a value, in `unit`, that should be `most` at the most.
    pub(crate) fn add(&mut self, what: &'static str, value: f64, most: f64, unit: &'static str) {
        self.0.push(Target { what, value, most, unit });
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new(&["target", "at most", "measured", ""]);
        for Target { what, value, most, unit } in &self.0 {
            let number = |value: &f64| format!("{} {unit}", (value * 100.0).round() / 100.0);
            let verdict = if value <= most { "reached" } else { "missed" };
            table.row([(*what).to_owned(), number(most), number(value), verdict.to_owned()]);
        }
        write!(f, "{table}")
    }
}
