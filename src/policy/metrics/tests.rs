//! Both formats against a grammar of their own, written from the formats'
//! documents and not from the code, and the list of metrics by name.

use super::*;
use crate::policy::checks::Level;
use crate::policy::death::Reason;
use crate::policy::health;
use crate::policy::limits::Limit;
use crate::policy::signal::Signal;
use crate::policy::statusz::used;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A status and a usage in which every source exists.
fn everything() -> (Status, Usage) {
    let mut status = health::serving();
    status.child_exit = Some(ExitReason::Signal(Signal::TERM));
    status.child_exits.add(Reason::Stopped);
    for signal in Signal::all() {
        status.signals_received.add(signal);
    }
    status.signals_forwarded.add(Signal::TERM);
    status.orphans_reaped = u64::MAX;
    status.restarts = 2;
    status.drain_connections = Some(5);
    status.late_connections = 7;
    status.config_changes = Some(6);
    status.limits.cpus = Some(Limit { value: 1.5, source: "cpu.max".to_owned() });
    status.limits.memory_bytes = Some(Limit { value: 1 << 29, source: "memory.max".to_owned() });
    let mut durations = Durations::default();
    for micros in [500, 1000, 700_000, 9_000_000] {
        durations.add(Duration::from_micros(micros));
    }
    for (name, level, is_up, durations) in [
        ("page", Level::Ready, true, Some(durations)),
        ("depends-on-1", Level::Dependency, false, Some(Durations::default())),
        ("watchdog", Level::Live, true, None),
    ] {
        let name = name.to_owned();
        status.checks.push(CheckReport { name, level, is_up, changed_at: None, durations });
    }
    status.limits.pids = Some(Limit { value: 50, source: "pids.max".to_owned() });
    let mut usage = used();
    usage.memory_bytes = Some(1 << 20);
    usage.throttled_seconds = Some(0.000_001);
    usage.oom_kills = Some(4);
    (status, usage)
}

/// The samples of `text` by name and labels. Panics when a line is not what
/// the format allows there.
fn parse(text: &str, format: Format) -> BTreeMap<String, f64> {
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphabetic())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
    };
    let body = match format {
        Format::Text => text,
        Format::OpenMetrics => text.strip_suffix("# EOF\n").expect("ends with EOF"),
    };
    assert!(body.ends_with('\n') && !body.contains("\n\n") && !body.contains("EOF"), "{body}");
    let (mut families, mut samples) = (BTreeSet::new(), BTreeMap::new());
    let (mut helped, mut family, mut kind) = ("", "", "");
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("name and help");
            assert!(is_name(name) && !help.is_empty() && !help.contains(['\\', '"']), "{line}");
            assert!(families.insert(name), "twice: {line}");
            helped = name;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            (family, kind) = rest.split_once(' ').expect("name and type");
            assert_eq!(family, helped, "TYPE follows its own HELP");
            assert!(["gauge", "counter", "histogram", "info"].contains(&kind), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("series and value");
            let (name, labels) = match series.split_once('{') {
                Some((name, labels)) => (name, labels.strip_suffix('}').expect("a closed label")),
                None => (series, ""),
            };
            let mut series = name.to_owned();
            for label in labels.split_terminator(',') {
                let (label, quoted) = label.split_once("=\"").expect("label and value");
                let value = quoted.strip_suffix('"').expect("a closed quote");
                assert!(is_name(label) && !value.contains(['"', '\\', ',']), "{line}");
                let is_number = label == "le" && value != "+Inf";
                assert!(!is_number || format == Format::Text || value.contains('.'), "{line}");
                // The formats write one number differently.
                let value = if is_number { value.trim_end_matches(".0") } else { value };
                series += &format!(",{label}=\"{value}\"");
            }
            let series = match series.split_once(',') {
                Some((name, labels)) => format!("{name}{{{labels}}}"),
                None => series,
            };
            if kind == "histogram" {
                let part = name.strip_prefix(family).expect("a sample stands below its family");
                assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}");
                assert_eq!(part == "_bucket", labels.contains("le="), "{line}");
                let number: f64 = value.parse().expect("a number");
                assert!(samples.insert(series, number).is_none(), "twice: {line}");
                continue;
            }
            let expected = match (format, kind) {
                (Format::Text, "gauge" | "counter") | (Format::OpenMetrics, "gauge") => {
                    family.to_owned()
                }
                (Format::OpenMetrics, "counter") => format!("{family}_total"),
                (Format::OpenMetrics, "info") => format!("{family}_info"),
                _ => panic!("no such type in this format: {line}"),
            };
            assert_eq!(name, expected, "a sample stands below its family");
            assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
            let number: f64 = value.parse().expect("a number");
            assert!(number.is_finite() && number >= 0.0, "{line}");
            assert!(samples.insert(series, number).is_none(), "twice: {line}");
        }
    }
    samples
}

#[test]
fn both_formats_are_well_formed_and_tell_the_same() {
    let (mut full, usage) = everything();
    full.phase = PhaseName::Draining;
    for (status, usage) in [(full, usage), (health::serving(), Usage::default())] {
        let [text, open] = [Format::Text, Format::OpenMetrics]
            .map(|format| parse(&render(&status, &usage, format), format));
        assert_eq!(text, open);
        let phases = text.iter().filter(|(series, _)| series.starts_with("castoff_phase{"));
        assert_eq!(phases.map(|(_, value)| value).sum::<f64>(), 1.0);
    }
}

#[test]
fn every_metric_of_the_contract_is_there_with_its_value() {
    let (status, usage) = everything();
    let samples = parse(&render(&status, &usage, Format::Text), Format::Text);
    let version = format!("castoff_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    for (series, value) in [
        (version.as_str(), 1.0),
        ("castoff_phase{phase=\"serving\"}", 1.0),
        ("castoff_phase{phase=\"exited\"}", 0.0),
        ("castoff_ready", 0.0),
        ("castoff_live", 1.0),
        ("castoff_child_up", 1.0),
        ("castoff_child_start_time_seconds", 1_763_640_000.25),
        ("castoff_child_exit_code", 143.0),
        ("castoff_signals_received_total{signal=\"SIGTERM\"}", 1.0),
        ("castoff_signals_received_total{signal=\"SIGRTMIN+3\"}", 1.0),
        ("castoff_signals_forwarded_total{signal=\"SIGTERM\"}", 1.0),
        ("castoff_orphans_reaped_total", u64::MAX as f64),
        ("castoff_child_restarts_total", 2.0),
        ("castoff_child_exits_total{reason=\"exited\"}", 0.0),
        ("castoff_child_exits_total{reason=\"signalled\"}", 0.0),
        ("castoff_child_exits_total{reason=\"stopped\"}", 1.0),
        ("castoff_child_exits_total{reason=\"killed_at_deadline\"}", 0.0),
        ("castoff_child_exits_total{reason=\"oom_killed\"}", 0.0),
        ("castoff_oom_kills_total", 4.0),
        ("castoff_drain_connections", 5.0),
        ("castoff_late_connections_total", 7.0),
        ("castoff_watch_changes_total", 6.0),
        ("castoff_cpu_limit_cores", 1.5),
        ("castoff_memory_limit_bytes", 536_870_912.0),
        ("castoff_memory_usage_bytes", 1_048_576.0),
        ("castoff_cpu_throttled_periods_total", 3.0),
        ("castoff_cpu_throttled_seconds_total", 0.000_001),
        ("castoff_pids_limit", 50.0),
        ("castoff_pids", 12.0),
        ("castoff_memory_working_set_bytes", 5_242_880.0),
        ("castoff_cpu_usage_seconds_total", 2.5),
        ("castoff_pressure_cpu_waiting_seconds_total", 1.5),
        ("castoff_pressure_cpu_stalled_seconds_total", 0.0),
        ("castoff_pressure_memory_waiting_seconds_total", 0.0),
        ("castoff_processes", 3.0),
        ("castoff_zombies", 1.0),
        ("castoff_child_cpu_seconds_total", 2.25),
        ("castoff_child_resident_memory_bytes", 4_194_304.0),
        ("castoff_child_virtual_memory_bytes", 9_437_184.0),
        ("castoff_child_threads", 11.0),
        ("castoff_child_open_fds", 20.0),
        ("castoff_child_log_lines_total{stream=\"stdout\"}", 40.0),
        ("castoff_child_log_lines_total{stream=\"stderr\"}", 2.0),
        ("castoff_log_dropped_total", 2.0),
    ] {
        assert_eq!(samples.get(series), Some(&value), "{series}");
    }
    let of_checks = samples.keys().filter(|series| series.starts_with("castoff_check_")).count();
    assert_eq!(of_checks, 3 + 2 * (BOUNDS.len() + 3));
    assert_eq!(
        samples.len() - of_checks,
        34 + PhaseName::ALL.len() + 5 + 64 + 1,
        "and nothing else"
    );
}

#[test]
fn checks_are_told_with_their_level_and_how_long_they_take() {
    let (status, usage) = everything();
    let samples = parse(&render(&status, &usage, Format::Text), Format::Text);
    let duration = "castoff_check_duration_seconds";
    let page = "check=\"page\",level=\"ready\"";
    for (series, value) in [
        (format!("castoff_check_up{{{page}}}"), 1.0),
        ("castoff_check_up{check=\"depends-on-1\",level=\"ready\"}".to_owned(), 0.0),
        ("castoff_check_up{check=\"watchdog\",level=\"live\"}".to_owned(), 1.0),
        (format!("{duration}_bucket{{{page},le=\"0.001\"}}"), 2.0),
        (format!("{duration}_bucket{{{page},le=\"0.5\"}}"), 2.0),
        (format!("{duration}_bucket{{{page},le=\"1\"}}"), 3.0),
        (format!("{duration}_bucket{{{page},le=\"5\"}}"), 3.0),
        (format!("{duration}_bucket{{{page},le=\"+Inf\"}}"), 4.0),
        (format!("{duration}_sum{{{page}}}"), 9.7015),
        (format!("{duration}_count{{{page}}}"), 4.0),
        (format!("{duration}_count{{check=\"depends-on-1\",level=\"ready\"}}"), 0.0),
    ] {
        assert_eq!(samples.get(&series), Some(&value), "{series}");
    }
    let open = render(&status, &usage, Format::OpenMetrics);
    assert!(open.contains(&format!("{duration}_bucket{{{page},le=\"1.0\"}} 3\n")), "{open}");
    assert!(open.contains(&format!("# TYPE {duration} histogram\n")), "{open}");
    let untimed = Status { checks: status.checks[2..].to_vec(), ..health::serving() };
    let text = render(&untimed, &usage, Format::Text);
    assert!(text.contains("castoff_check_up{") && !text.contains(duration), "{text}");
}

#[test]
fn ready_and_live_go_by_the_checks() {
    let (mut status, usage) = everything();
    status.checks[2].is_up = false;
    let samples = parse(&render(&status, &usage, Format::Text), Format::Text);
    let [ready, live] = ["castoff_ready", "castoff_live"].map(|name| samples.get(name).copied());
    assert_eq!((ready, live), (Some(0.0), Some(0.0)));
}

#[test]
fn a_metric_without_a_source_is_left_out() {
    let status = Status { child_started_at: None, ..health::serving() };
    let text = render(&status, &Usage::default(), Format::Text);
    for name in [
        "castoff_child_start_time_seconds",
        "castoff_child_exit_code",
        "castoff_signals_",
        "castoff_cpu_",
        "castoff_memory_",
        "castoff_pids",
        "castoff_pressure_",
        "castoff_processes",
        "castoff_zombies",
        "castoff_child_cpu_",
        "castoff_child_open_fds",
        "castoff_drain_connections",
        "castoff_check_",
    ] {
        assert!(!text.contains(name), "{name} in:\n{text}");
    }
    let samples = parse(&text, Format::Text);
    assert_eq!(samples.get("castoff_orphans_reaped_total"), Some(&0.0), "counted, none yet");
}

#[test]
fn accept_decides_between_the_formats() {
    let prometheus_3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,\
         application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;q=0.4,\
         text/plain;version=0.0.4;q=0.3,*/*;q=0.2";
    for accept in [
        prometheus_3,
        "application/openmetrics-text",
        "Application/OpenMetrics-Text ; Version=1.0.0 ; Q=0.5",
        "application/openmetrics-text;version=\"1.0.0\", text/plain;q=0.9, */*;q=0.1",
        "text/plain;q=0.5,application/openmetrics-text;q=0.5",
    ] {
        assert_eq!(Format::from_accept(accept), Format::OpenMetrics, "{accept}");
    }
    for accept in [
        "",
        "*/*",
        "application/*",
        "text/html,application/xhtml+xml,*/*;q=0.8",
        "text/plain;version=0.0.4",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=nan",
        "application/openmetrics-text;q=7",
        "application/openmetrics-text;version=2.0.0",
        "application/openmetrics-text;q=0.3, text/plain;q=0.5",
        ",;=,q=,;q=1",
    ] {
        assert_eq!(Format::from_accept(accept), Format::Text, "{accept}");
    }
}

proptest::proptest! {
    #[test]
    fn any_accept_gets_a_format(accept in "([a-z/*]{0,8};? ?q?=?[0-9.]{0,3},?)*|.*") {
        Format::from_accept(&accept);
    }
}
