//! The answers to a probe: a `Status`, a path and a query in, text out.
//!
//! Paths, parameters and bodies are those of the Kubernetes API server
//! (`kubernetes.io/docs/reference/using-api/health-checks`), but a failure is
//! a 503, which load balancers read as "not now". An answer tells names and
//! outcomes only: the reason of a failure goes to the log, never to a client.

use super::checks::{self, CheckReport};
use super::status::{PhaseName, Status};

/// What a probe is told. `body` is never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) verdict: Verdict,
    pub(crate) body: String,
}

/// The outcome of a probe; `http` has the status code of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// No endpoint and no check has this path.
    Unknown,
}

/// The three questions that a platform asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    Live,
    Ready,
    Startup,
}

/// A named part of a level's answer.
struct Check<'a> {
    name: &'a str,
    is_ok: bool,
}

/// Answers a GET of `path?query`. Neither needs to be well-formed.
pub(crate) fn answer(status: &Status, path: &str, query: &str) -> Answer {
    let (endpoint, check) = match path.strip_prefix('/').unwrap_or_default().split_once('/') {
        Some((endpoint, check)) => (endpoint, Some(check)),
        None => (path.strip_prefix('/').unwrap_or_default(), None),
    };
    let level = match endpoint {
        "livez" | "healthz" => Level::Live,
        "readyz" | "ready" => Level::Ready,
        "startupz" => Level::Startup,
        _ => return not_found(),
    };
    let checks = checks(level, status);
    match check {
        None => answer_all(endpoint, &checks, query),
        Some(name) => match checks.iter().find(|check| check.name == name) {
            Some(check) => answer_one(check),
            None => not_found(),
        },
    }
}

/// The checks of a level, in the order in which they are listed: those that were
/// configured stand behind what castoff knows by itself, but before `started`
/// where they lead to it. Those of readiness all pass exactly when
/// `Status::is_ready`, those of liveness exactly when `Status::is_live`.
fn checks(level: Level, status: &Status) -> Vec<Check<'_>> {
    let configured = |levels: &'static [checks::Level]| {
        status.checks.iter().filter(|check| levels.contains(&check.level))
    };
    let as_it_is = |check| check_of(check, check.is_up);
    match level {
        Level::Live => {
            // That there is an answer at all is the check: the loop turns.
            let ping = Check { name: "ping", is_ok: true };
            let live = configured(&[checks::Level::Live]).map(as_it_is);
            [ping].into_iter().chain(live).collect()
        }
        Level::Ready => {
            // A child that drains may take traffic on purpose, so readiness is
            // never derived from the phase; the phase only names the culprit.
            let child = status.takes_traffic || status.child_is_up;
            let is_stopping = matches!(status.phase, PhaseName::Draining | PhaseName::Stopping);
            let is_asked_to_stop = status.stop_requested_at.is_some() || is_stopping;
            let stop = status.takes_traffic || !is_asked_to_stop;
            // A child that has been ready, is up and was not asked to stop takes
            // no traffic only because it is getting ready again.
            let started = status.takes_traffic || (status.was_ready && !(child && stop));
            let own = [("child", child), ("started", started), ("stop", stop)];
            let ready = configured(&[checks::Level::Ready, checks::Level::Dependency]);
            own.map(|(name, is_ok)| Check { name, is_ok })
                .into_iter()
                .chain(ready.map(as_it_is))
                .collect()
        }
        Level::Startup => {
            // Started is started: a restart runs its checks anew.
            let once = |check| check_of(check, check.is_up || status.was_ready);
            configured(&[checks::Level::Wait])
                .chain(configured(&[checks::Level::Startup]))
                .map(once)
                .chain([Check { name: "started", is_ok: status.was_ready }])
                .collect()
        }
    }
}

fn check_of(check: &CheckReport, is_ok: bool) -> Check<'_> {
    Check { name: &check.name, is_ok }
}

fn answer_all(endpoint: &str, checks: &[Check<'_>], query: &str) -> Answer {
    let asked = Asked::parse(query);
    let mut unmatched = asked.excluded;
    let mut listing = String::new();
    let mut passed = true;
    for Check { name, is_ok } in checks {
        if let Some(at) = unmatched.iter().position(|excluded| excluded == name) {
            unmatched.remove(at);
            listing.push_str(&format!("[+]{name} excluded: ok\n"));
        } else {
            passed &= is_ok;
            listing.push_str(&line(name, *is_ok));
        }
    }
    if !unmatched.is_empty() {
        // Quoted, because the names are the client's.
        let names: Vec<_> = unmatched.iter().map(|name| format!("{name:?}")).collect();
        listing.push_str("warn: some health checks cannot be excluded: no matches for ");
        listing.push_str(&names.join(","));
        listing.push('\n');
    }
    match passed {
        true if !asked.is_verbose => Answer { verdict: Verdict::Passed, body: "ok".to_owned() },
        true => {
            Answer { verdict: Verdict::Passed, body: format!("{listing}{endpoint} check passed\n") }
        }
        false => {
            Answer { verdict: Verdict::Failed, body: format!("{listing}{endpoint} check failed\n") }
        }
    }
}

fn answer_one(check: &Check<'_>) -> Answer {
    match check.is_ok {
        true => Answer { verdict: Verdict::Passed, body: "ok".to_owned() },
        false => Answer { verdict: Verdict::Failed, body: line(check.name, false) },
    }
}

fn line(name: &str, is_ok: bool) -> String {
    match is_ok {
        true => format!("[+]{name} ok\n"),
        false => format!("[-]{name} failed: reason withheld\n"),
    }
}

fn not_found() -> Answer {
    Answer { verdict: Verdict::Unknown, body: "404 page not found\n".to_owned() }
}

/// What the query asks for.
struct Asked {
    /// `verbose` is present, with whatever value.
    is_verbose: bool,
    /// Every `exclude`, sorted, each once.
    excluded: Vec<String>,
}

impl Asked {
    fn parse(query: &str) -> Self {
        let mut asked = Self { is_verbose: false, excluded: Vec::new() };
        for pair in query.split('&') {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            match (decode(key).as_deref(), decode(value)) {
                (Some("verbose"), Some(_)) => asked.is_verbose = true,
                (Some("exclude"), Some(name)) => asked.excluded.push(name),
                _ => {}
            }
        }
        asked.excluded.sort_unstable();
        asked.excluded.dedup();
        asked
    }
}

/// `%63hild` and `a+b` as they were meant; `None` for a broken escape, which
/// the API server drops with its whole pair.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let mut digit = || char::from(bytes.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            b'+' => b' ',
            other => other,
        });
    }
    Some(String::from_utf8_lossy(&decoded).into_owned())
}

/// A child that serves, as the tests of `health`, `metrics` and `http` want it.
#[cfg(test)]
pub(crate) fn serving() -> Status {
    Status {
        phase: PhaseName::Serving,
        takes_traffic: true,
        was_ready: true,
        child_is_up: true,
        child_pid: Some(7),
        child_started_at: Some(1_763_640_000.25),
        ..Status::new(Default::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::checks::CheckReport;
    use crate::policy::status::PhaseName;
    use proptest::prelude::*;
    use std::time::Instant;

    fn get(status: &Status, target: &str) -> (Verdict, String) {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let Answer { verdict, body } = answer(status, path, query);
        (verdict, body)
    }

    fn passed(body: &str) -> (Verdict, String) {
        (Verdict::Passed, body.to_owned())
    }

    fn failed(body: &str) -> (Verdict, String) {
        (Verdict::Failed, body.to_owned())
    }

    fn starting() -> Status {
        Status { phase: PhaseName::Starting, takes_traffic: false, was_ready: false, ..serving() }
    }

    fn stopping() -> Status {
        let (phase, stop_requested_at) = (PhaseName::Stopping, Some(Instant::now()));
        Status { phase, stop_requested_at, takes_traffic: false, ..serving() }
    }

    #[test]
    fn what_passes_says_ok_and_nothing_else() {
        for path in ["/livez", "/healthz", "/readyz", "/ready", "/startupz"] {
            assert_eq!(get(&serving(), path), passed("ok"), "{path}");
        }
    }

    #[test]
    fn verbose_lists_every_check_and_ends_with_the_name_that_was_asked_for() {
        assert_eq!(get(&serving(), "/livez?verbose"), passed("[+]ping ok\nlivez check passed\n"));
        assert_eq!(
            get(&serving(), "/healthz?verbose"),
            passed("[+]ping ok\nhealthz check passed\n")
        );
        assert_eq!(
            get(&serving(), "/readyz?verbose=false"),
            passed("[+]child ok\n[+]started ok\n[+]stop ok\nreadyz check passed\n")
        );
        assert_eq!(
            get(&serving(), "/startupz?verbose=1"),
            passed("[+]started ok\nstartupz check passed\n")
        );
    }

    #[test]
    fn a_failure_is_always_verbose_and_withholds_its_reason() {
        assert_eq!(
            get(&starting(), "/ready"),
            failed(
                "[+]child ok\n[-]started failed: reason withheld\n[+]stop ok\nready check failed\n"
            )
        );
        assert_eq!(
            get(&stopping(), "/readyz"),
            failed(
                "[+]child ok\n[+]started ok\n[-]stop failed: reason withheld\nreadyz check failed\n"
            )
        );
        assert_eq!(
            get(&starting(), "/startupz"),
            failed("[-]started failed: reason withheld\nstartupz check failed\n")
        );
        assert_eq!(get(&stopping(), "/livez"), passed("ok"), "live until the end");
        assert_eq!(get(&stopping(), "/startupz"), passed("ok"), "started for good");
    }

    #[test]
    fn an_excluded_check_counts_as_passed() {
        assert_eq!(get(&stopping(), "/readyz?exclude=stop"), passed("ok"));
        assert_eq!(
            get(&stopping(), "/readyz?exclude=%73top&verbose&exclude=child&exclude=child"),
            passed(
                "[+]child excluded: ok\n[+]started ok\n[+]stop excluded: ok\nreadyz check passed\n"
            )
        );
    }

    #[test]
    fn a_name_that_cannot_be_excluded_is_a_warning() {
        assert_eq!(
            get(&serving(), "/livez?verbose&exclude=zoo&exclude=a+%22%0Ab&exclude=%zz"),
            passed(
                "[+]ping ok\nwarn: some health checks cannot be excluded: \
                 no matches for \"a \\\"\\nb\",\"zoo\"\nlivez check passed\n"
            )
        );
        assert_eq!(get(&serving(), "/livez?exclude=zoo"), passed("ok"));
    }

    #[test]
    fn each_check_has_its_own_path() {
        assert_eq!(get(&stopping(), "/readyz/child"), passed("ok"));
        assert_eq!(get(&stopping(), "/ready/stop"), failed("[-]stop failed: reason withheld\n"));
        assert_eq!(get(&serving(), "/livez/ping"), passed("ok"));
        assert_eq!(get(&serving(), "/healthz/ping"), passed("ok"));
        assert_eq!(get(&starting(), "/startupz/started").0, Verdict::Failed);
    }

    #[test]
    fn any_other_path_is_unknown() {
        for path in ["", "/", "livez", "/livez/", "//livez", "/livez/child", "/readyz/x", "/LIVEZ"]
        {
            assert_eq!(get(&serving(), path).0, Verdict::Unknown, "{path:?}");
        }
    }

    #[test]
    fn checks_stand_behind_what_castoff_knows_itself() {
        let status = checked(true);
        assert_eq!(
            get(&status, "/livez?verbose"),
            passed("[+]ping ok\n[+]turns ok\n[+]watchdog ok\nlivez check passed\n")
        );
        assert_eq!(
            get(&status, "/readyz?verbose"),
            passed(
                "[+]child ok\n[+]started ok\n[+]stop ok\n[+]page ok\n[+]depends-on-1 ok\n\
                 readyz check passed\n"
            )
        );
        assert_eq!(
            get(&status, "/startupz?verbose"),
            passed("[+]wait-for-1 ok\n[+]warm ok\n[+]started ok\nstartupz check passed\n")
        );
    }

    #[test]
    fn a_check_that_is_down_turns_its_own_level_off() {
        for (name, path, others) in [
            ("watchdog", "/livez", ["/readyz", "/startupz"]),
            ("page", "/readyz", ["/livez", "/startupz"]),
            ("depends-on-1", "/readyz", ["/livez", "/startupz"]),
        ] {
            let mut status = checked(true);
            for check in status.checks.iter_mut().filter(|check| check.name == name) {
                check.is_up = false;
            }
            let line = format!("[-]{name} failed: reason withheld\n");
            let (verdict, body) = get(&status, path);
            assert_eq!(verdict, Verdict::Failed, "{name}");
            assert!(body.contains(&line), "{body}");
            assert_eq!(get(&status, &format!("{path}?exclude={name}")), passed("ok"));
            assert_eq!(get(&status, &format!("{path}/{name}")), failed(&line));
            for other in others {
                assert_eq!(get(&status, other), passed("ok"), "{name}");
                assert_eq!(get(&status, &format!("{other}/{name}")).0, Verdict::Unknown);
            }
        }
    }

    #[test]
    fn startup_names_what_it_waits_for_and_forgets_it_once_started() {
        let waiting = Status { checks: checked(false).checks, ..starting() };
        assert_eq!(
            get(&waiting, "/startupz"),
            failed(
                "[-]wait-for-1 failed: reason withheld\n[-]warm failed: reason withheld\n\
                 [-]started failed: reason withheld\nstartupz check failed\n"
            )
        );
        let again = checked(false);
        assert_eq!(get(&again, "/startupz"), passed("ok"), "in a restart");
        assert_eq!(get(&again, "/startupz/warm"), passed("ok"));
    }

    /// A child that serves, with a check of every level and two of liveness.
    fn checked(is_up: bool) -> Status {
        let levels = [
            ("page", checks::Level::Ready),
            ("turns", checks::Level::Live),
            ("warm", checks::Level::Startup),
            ("watchdog", checks::Level::Live),
            ("depends-on-1", checks::Level::Dependency),
            ("wait-for-1", checks::Level::Wait),
        ];
        let report = |(name, level): (&str, _)| CheckReport {
            name: name.to_owned(),
            level,
            is_up,
            changed_at: None,
            durations: None,
        };
        Status { checks: levels.map(report).to_vec(), ..serving() }
    }

    fn any_status() -> impl Strategy<Value = Status> {
        let facts = (0..PhaseName::ALL.len(), any::<[bool; 4]>(), any::<[bool; 6]>());
        facts.prop_map(|(phase, [traffic, was, up, stop], are_up)| {
            let mut checks = checked(true).checks;
            for (check, is_up) in checks.iter_mut().zip(are_up) {
                check.is_up = is_up;
            }
            Status {
                phase: PhaseName::ALL[phase],
                takes_traffic: traffic,
                was_ready: was,
                child_is_up: up,
                stop_requested_at: stop.then(Instant::now),
                checks,
                ..serving()
            }
        })
    }

    proptest! {
        #[test]
        fn each_endpoint_is_exactly_what_the_status_says(status in any_status(), verbose: bool) {
            let query = if verbose { "verbose" } else { "" };
            for path in ["/readyz", "/ready"] {
                let answer = answer(&status, path, query);
                prop_assert_eq!(answer.verdict == Verdict::Passed, status.is_ready());
            }
            for (path, passes) in
                [("/livez", status.is_live()), ("/startupz", status.was_ready)]
            {
                let answer = answer(&status, path, query);
                prop_assert_eq!(answer.verdict == Verdict::Passed, passes);
            }
        }

        #[test]
        fn nothing_that_is_asked_goes_unanswered(
            status in any_status(),
            path in "(/(livez|readyz|startupz|.*))?(/.*)?",
            query in "((exclude|verbose|.*)=?(%[0-9a-f]{0,2}|.)*&?)*",
        ) {
            prop_assert!(!answer(&status, &path, &query).body.is_empty());
        }
    }
}
