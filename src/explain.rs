//! `castoff explain`: what castoff would do here, and why, as text or JSON.
//!
//! Owns what is told and how it is laid out. It only writes: the limits were
//! detected, the exports made and the timeline reckoned by whoever does so for a
//! start. Nothing secret is told: see `config::Explanation`. `run` calls it.

use crate::config::{Shown, duration_text};
use crate::json::{Json, OrNull};
use crate::policy::checks::CheckRules;
use crate::policy::limits::{Found, Limit};
use crate::policy::runtime_env::Export;
use crate::policy::statusz::printable;
use crate::policy::timeline::Step;

/// Beyond this column nothing is aligned.
const WIDEST: usize = 44;

/// Everything there is to tell.
pub(crate) struct Facts<'a> {
    pub(crate) found: &'a Found,
    /// No limit, but what v2 slows down at.
    pub(crate) memory_high: Option<Limit<u64>>,
    pub(crate) exports: &'a [Export],
    /// Variables that a profile stands for and that are not exported, and why.
    pub(crate) withheld: &'a [(&'static str, String)],
    /// `CASTOFF_SIZING` is off.
    pub(crate) is_sizing_off: bool,
    pub(crate) checks: &'a [CheckRules],
    /// Of a stop that is asked for while the child serves.
    pub(crate) timeline: &'a [Step],
    pub(crate) settings: &'a [Shown],
}

/// For people.
pub(crate) fn text(facts: &Facts<'_>) -> String {
    let mut page = Page { text: String::with_capacity(4096) };
    page.limits(facts);
    page.exports(facts);

    page.head("checks");
    let rows = facts.checks.iter().map(|check| {
        let CheckRules { name, level, target, period, timeout, failures, successes } = check;
        let (period, timeout) = (duration_text(*period), duration_text(*timeout));
        let rules = format!(
            "every {period} for at most {timeout}, off after {failures}, on after {successes}"
        );
        [name.clone(), level.as_str().to_owned(), target.label(), rules]
    });
    page.rows(rows.collect(), "none: ready as soon as the child runs");

    page.head("timeline of a stop that nobody obeys");
    let rows = facts.timeline.iter().map(|Step { at, phase, what }| {
        [format!("{:>8} ms", at.as_millis()), phase.as_str().to_owned(), what.clone()]
    });
    page.rows(rows.collect(), "none");

    page.head("settings other than the defaults");
    let rows = facts.settings.iter().filter(|setting| !setting.is_default);
    let rows =
        rows.map(|Shown { word, value, origin, .. }| [format!("{word} = {value}"), origin.clone()]);
    page.rows(rows.collect(), "none");

    if !facts.found.warnings.is_empty() {
        page.head("warnings");
        page.rows(facts.found.warnings.iter().map(|warning| [warning.clone()]).collect(), "");
    }
    page.text
}

struct Page {
    text: String,
}

impl Page {
    fn head(&mut self, name: &str) {
        let between = if self.text.is_empty() { "" } else { "\n" };
        self.text.push_str(&format!("{between}[{name}]\n"));
    }

    /// Aligned columns; the last one is as wide as it is.
    fn rows<const N: usize>(&mut self, rows: Vec<[String; N]>, none: &str) {
        if rows.is_empty() {
            self.text.extend([none, "\n"]);
        }
        let rows: Vec<_> =
            rows.iter().map(|row| row.each_ref().map(|cell| printable(cell))).collect();
        let width = |column: usize| {
            let cells = rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).filter(|width| *width <= WIDEST).max()
        };
        for row in &rows {
            for (column, cell) in row.iter().enumerate() {
                if column + 1 == N {
                    self.text.push_str(cell);
                } else {
                    let width = width(column).unwrap_or_default();
                    self.text.push_str(&format!("{cell:<width$}  "));
                }
            }
            self.text.push('\n');
        }
    }

    fn limits(&mut self, facts: &Facts<'_>) {
        let found = facts.found;
        let limits = &found.limits;
        self.head("limits");
        let none = || ["none".to_owned(), String::new()];
        let cpus = limits.cpus.as_ref().map(|cpus| [cpus.value.to_string(), place(found, cpus)]);
        let bytes = |limit: &Limit<u64>| [bytes_text(limit.value), place(found, limit)];
        let pids = limits.pids.as_ref().map(|pids| [pids.value.to_string(), place(found, pids)]);
        let row = |name: &str, [value, place]: [String; 2]| [name.to_owned(), value, place];
        let mut rows = vec![
            row("cgroup", [limits.cgroup.as_str().to_owned(), String::new()]),
            row("cpus", cpus.unwrap_or_else(none)),
            row("memory_bytes", limits.memory_bytes.as_ref().map_or_else(none, bytes)),
            row("pids", pids.unwrap_or_else(none)),
        ];
        if let Some(count) = limits.affinity {
            rows.push(row("usable CPUs", [count.to_string(), "affinity and cpuset".to_owned()]));
        }
        if let Some(high) = &facts.memory_high {
            let [value, place] = bytes(high);
            rows.push(row("memory_high", [value, format!("{place}: slows down, limits nothing")]));
        }
        let width = rows.iter().map(|[_, value, _]| value.len()).max().unwrap_or_default();
        for [name, value, place] in rows {
            let line = format!("{name:<12}  {value:<width$}  {place}");
            self.text.extend([printable(line.trim_end()).as_str(), "\n"]);
        }
    }

    fn exports(&mut self, facts: &Facts<'_>) {
        self.head("exported variables");
        let limits = &facts.found.limits;
        let has_any =
            limits.cpus.is_some() || limits.memory_bytes.is_some() || limits.pids.is_some();
        let none = match (facts.is_sizing_off, has_any) {
            (true, _) => "none: CASTOFF_SIZING is off",
            (false, false) => "none: there is no limit",
            (false, true) => "none",
        };
        let rows = facts.exports.iter().map(|export| {
            let Export { name, value, why, .. } = export;
            [format!("{name}={value}"), why.clone()]
        });
        self.rows(rows.collect(), none);
        if !facts.withheld.is_empty() {
            self.head("variables that are not exported");
            let rows = facts.withheld.iter().map(|(name, why)| [(*name).to_owned(), why.clone()]);
            self.rows(rows.collect(), "");
        }
    }
}

/// The file, and whose it is.
fn place<T>(found: &Found, limit: &Limit<T>) -> String {
    let whose = match found.level_of(limit) {
        // Nobody can see whose it is.
        Some(_) if limit.source.ends_with("/memory.stat") => " (of an ancestor)".to_owned(),
        Some(0) => " (the own group)".to_owned(),
        Some(1) => " (the group above)".to_owned(),
        Some(levels) => format!(" ({levels} groups above)"),
        None => String::new(),
    };
    format!("{}{whose}", limit.source)
}

/// `67108864, 64 MiB`
fn bytes_text(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.into_iter().find(|(bits, _)| bytes.is_multiple_of(1 << bits));
    unit.map_or_else(
        || bytes.to_string(),
        |(bits, unit)| format!("{bytes}, {} {unit}", bytes >> bits),
    )
}

/// For programs: one line.
pub(crate) fn json(facts: &Facts<'_>) -> String {
    let mut page = Json::new();
    let found = facts.found;
    let limits = &found.limits;
    page.open("limits", '{');
    page.limits(limits);
    page.open("levels", '{');
    page.value("cpus", &OrNull(limits.cpus.as_ref().and_then(|limit| found.level_of(limit))));
    let memory = limits.memory_bytes.as_ref();
    page.value("memory_bytes", &OrNull(memory.and_then(|limit| found.level_of(limit))));
    page.value("pids", &OrNull(limits.pids.as_ref().and_then(|limit| found.level_of(limit))));
    page.close('}');
    page.value("usable_cpus", &OrNull(limits.affinity));
    page.value("memory_high_bytes", &OrNull(facts.memory_high.as_ref().map(|high| high.value)));
    page.close('}');
    page.open("exports", '[');
    for Export { name, value, why, .. } in facts.exports {
        page.open("", '{');
        page.text("name", Some(name));
        page.text("value", Some(value));
        page.text("why", Some(why));
        page.close('}');
    }
    page.close(']');
    page.open("withheld", '[');
    for (name, why) in facts.withheld {
        page.open("", '{');
        page.text("name", Some(name));
        page.text("why", Some(why));
        page.close('}');
    }
    page.close(']');
    page.open("checks", '[');
    for check in facts.checks {
        let CheckRules { name, level, target, period, timeout, failures, successes } = check;
        page.open("", '{');
        page.text("name", Some(name));
        page.text("level", Some(level.as_str()));
        page.text("target", Some(&target.label()));
        page.text("period", Some(&duration_text(*period)));
        page.text("timeout", Some(&duration_text(*timeout)));
        page.value("failures", failures);
        page.value("successes", successes);
        page.close('}');
    }
    page.close(']');
    page.timeline(facts.timeline);
    page.open("settings", '{');
    for Shown { word, value, origin, .. } in facts.settings {
        page.open(word, '{');
        page.value("value", value);
        page.text("origin", Some(origin));
        page.close('}');
    }
    page.close('}');
    page.open("warnings", '[');
    for warning in &found.warnings {
        page.text("", Some(warning));
    }
    page.close(']');
    page.end()
}
