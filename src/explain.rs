//! `castoff explain`: what castoff would do here, and why, as text or JSON.
//!
//! Owns what is told and how it is laid out. It only writes: the limits were
//! detected, the exports made and the timeline reckoned by whoever does so for a
//! start. Nothing secret is told: see `config::Explanation`. `run` calls it.

use std::fmt::Display;

use crate::config::{Shown, duration_text};
use crate::json::{Json, OrNull};
use crate::policy::checks::CheckRules;
use crate::policy::limits::{Found, Limit};
use crate::policy::runtime_env::{Change, Export, Exports, Withheld};
use crate::policy::statusz::{place, printable};
use crate::policy::timeline::Step;

/// Beyond this column nothing is aligned.
const WIDEST: usize = 44;

/// Everything there is to tell.
pub(crate) struct Facts<'a> {
    pub(crate) found: &'a Found,
    /// What the command runs, as far as that is known.
    pub(crate) program: Option<String>,
    /// No limit, but what v2 slows down at.
    pub(crate) memory_high: Option<Limit<u64>>,
    pub(crate) exports: &'a Exports,
    /// `CASTOFF_SIZING` is off.
    pub(crate) is_sizing_off: bool,
    pub(crate) checks: &'a [CheckRules],
    /// Of a stop that is asked for while the child serves.
    pub(crate) timeline: &'a [Step],
    pub(crate) settings: &'a [Shown],
}

/// For people.
pub(crate) fn text(facts: &Facts<'_>) -> String {
    let mut page = Page { text: String::with_capacity(4096), rows: Vec::new() };
    page.limits(facts);
    page.exports(facts);
    for check in facts.checks {
        let CheckRules { name, level, target, period, timeout, failures, successes } = check;
        let (period, timeout) = (duration_text(*period), duration_text(*timeout));
        let rules = format!(
            "every {period} for at most {timeout}, off after {failures}, on after {successes}"
        );
        page.row(&[name, &level.as_str(), &target.label(), &rules]);
    }
    page.section("checks", "none: ready as soon as the child runs");
    for Step { at, phase, what } in facts.timeline {
        page.row(&[&format_args!("{:>8} ms", at.as_millis()), &phase.as_str(), what]);
    }
    page.section("timeline of a stop that nobody obeys", "none");
    for Shown { word, value, origin, .. } in facts.settings.iter().filter(|it| !it.is_default) {
        page.row(&[&format_args!("{word} = {value}"), origin]);
    }
    page.section("settings other than the defaults", "none");
    for warning in &facts.found.warnings {
        page.row(&[warning]);
    }
    page.section("warnings", "");
    page.text
}

struct Page {
    text: String,
    /// Those of the section to come.
    rows: Vec<Vec<String>>,
}

impl Page {
    fn row(&mut self, cells: &[&dyn Display]) {
        self.rows.push(cells.iter().map(|cell| printable(&cell.to_string())).collect());
    }

    /// The rows since the last section, in aligned columns, or else `none`; when
    /// that is empty too there is no section.
    fn section(&mut self, name: &str, none: &str) {
        let rows = std::mem::take(&mut self.rows);
        if rows.is_empty() && none.is_empty() {
            return;
        }
        let between = if self.text.is_empty() { "" } else { "\n" };
        self.text.extend([between, "[", name, "]\n"]);
        if rows.is_empty() {
            self.text.extend([none, "\n"]);
        }
        let mut widths = [0; 4];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                let length = cell.chars().count();
                if length <= WIDEST {
                    *width = length.max(*width);
                }
            }
        }
        for row in &rows {
            let mut line = String::new();
            for (width, cell) in widths.iter().zip(row) {
                line.push_str(&format!("{cell:<width$}  "));
            }
            self.text.extend([line.trim_end(), "\n"]);
        }
    }

    fn limits(&mut self, facts: &Facts<'_>) {
        let found = facts.found;
        let limits = &found.limits;
        self.row(&[&"cgroup", &limits.cgroup.as_str()]);
        let mut limit = |name: &str, limit: Option<(String, &str)>, level| match limit {
            Some((value, source)) => self.row(&[&name, &value, &place(source, level)]),
            None => self.row(&[&name, &"none"]),
        };
        let levels = limits.levels;
        let number = |limit: &Limit<u64>| limit.value.to_string();
        let cpus = limits.cpus.as_ref().map(|cpus| (cpus.value.to_string(), &*cpus.source));
        limit("cpus", cpus, levels.cpus);
        let bytes = limits.memory_bytes.as_ref();
        let bytes = bytes.map(|bytes| (bytes_text(bytes.value), &*bytes.source));
        limit("memory_bytes", bytes, levels.memory_bytes);
        let pids = limits.pids.as_ref().map(|pids| (number(pids), &*pids.source));
        limit("pids", pids, levels.pids);
        if let Some(count) = limits.affinity {
            self.row(&[&"usable CPUs", &count, &"affinity and cpuset"]);
        }
        if let Some(Limit { value, source }) = &facts.memory_high {
            let place = format_args!("{source}: slows down, limits nothing");
            self.row(&[&"memory_high", &bytes_text(*value), &place]);
        }
        self.section("limits", "");
        if let Some(program) = &facts.program {
            self.row(&[program]);
        }
        self.section("program", "");
    }

    fn exports(&mut self, facts: &Facts<'_>) {
        let limits = &facts.found.limits;
        let has_any =
            limits.cpus.is_some() || limits.memory_bytes.is_some() || limits.pids.is_some();
        let none = match (facts.is_sizing_off, has_any) {
            (true, _) => "none: CASTOFF_SIZING is off",
            (false, false) => "none: there is no limit",
            (false, true) => "none",
        };
        for Export { name, value, change, why } in &facts.exports.exports {
            let sign = match change {
                Change::Added => "=",
                Change::Appended => "+=",
            };
            self.row(&[&format_args!("{name}{sign}{value}"), why]);
        }
        self.section("exported variables", none);
        for Withheld { name, why } in &facts.exports.withheld {
            self.row(&[name, why]);
        }
        self.section("variables that are not exported", "");
    }
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
    page.value("usable_cpus", &OrNull(limits.affinity));
    page.value("memory_high_bytes", &OrNull(facts.memory_high.as_ref().map(|high| high.value)));
    page.close('}');
    page.text("program", facts.program.as_deref());
    page.open("exports", '[');
    for Export { name, value, change, why } in &facts.exports.exports {
        page.open("", '{');
        page.text("name", Some(name));
        page.text("value", Some(value));
        if *change == Change::Appended {
            page.value("appended", &true);
        }
        page.text("why", Some(why));
        page.close('}');
    }
    page.close(']');
    page.open("withheld", '[');
    for Withheld { name, why } in &facts.exports.withheld {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::limits;

    #[test]
    fn bytes_have_the_largest_unit_that_divides_them() {
        for (bytes, text) in [
            (67_108_864, "67108864, 64 MiB"),
            (2 << 30, "2147483648, 2 GiB"),
            (4096, "4096, 4 KiB"),
            (1_000_000, "1000000"),
        ] {
            assert_eq!(bytes_text(bytes), text);
        }
    }

    #[test]
    fn a_line_stays_a_line_whatever_a_path_holds() {
        let found = limits::find(Some(1), |path| {
            Ok(match path.to_str() {
                Some("/proc/self/cgroup") => Some(b"0::/a\tb\x1b/c".to_vec()),
                Some("/proc/self/mountinfo") => {
                    Some(b"3 1 0:3 / /m\\012n r - cgroup2 c r".to_vec())
                }
                Some("/m\nn/a\tb\x1b/pids.max") => Some(b"7\n".to_vec()),
                Some("/m\nn/a\tb\x1b/cpu.max") => Some(b"odd\x1b\n".to_vec()),
                _ => None,
            })
        });
        let why = format!("limit from {}", found.limits.pids.clone().unwrap().source);
        let change = Change::Added;
        let exports = Exports {
            exports: vec![Export { name: "CASTOFF_PIDS", value: "7".to_owned(), change, why }],
            withheld: vec![Withheld { name: "GOMAXPROCS", why: "is set already".to_owned() }],
        };
        let facts = Facts {
            found: &found,
            program: Some("go 1.24".to_owned()),
            memory_high: Some(Limit { value: 4096, source: "/x".to_owned() }),
            exports: &exports,
            is_sizing_off: false,
            checks: &[],
            timeline: &[],
            settings: &[],
        };
        assert_eq!(
            text(&facts),
            "[limits]\n\
             cgroup        v2\n\
             cpus          none\n\
             memory_bytes  none\n\
             pids          7            /m?n/a?b?/pids.max, the group above\n\
             memory_high   4096, 4 KiB  /x: slows down, limits nothing\n\
             \n[program]\n\
             go 1.24\n\
             \n[exported variables]\n\
             CASTOFF_PIDS=7  limit from /m?n/a?b?/pids.max\n\
             \n[variables that are not exported]\n\
             GOMAXPROCS  is set already\n\
             \n[checks]\n\
             none: ready as soon as the child runs\n\
             \n[timeline of a stop that nobody obeys]\n\
             none\n\
             \n[settings other than the defaults]\n\
             none\n\
             \n[warnings]\n\
             cannot use /m?n/a?b?/cpu.max \"odd\\u{1b}\": expected a quota and a period above 0, \
             such as \"50000 100000\"\n"
        );
        let page: serde_json::Value = serde_json::from_str(&json(&facts)).unwrap();
        assert_eq!(page["limits"]["sources"]["pids"], "/m\nn/a\tb\u{1b}/pids.max");
        assert_eq!(page["limits"]["levels"]["pids"], 1);
    }
}
