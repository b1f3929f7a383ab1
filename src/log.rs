//! castoff's log: lines on standard error, in the format of the settings.
//!
//! Owns the set-up of tracing, the one way to standard error, and the panic
//! hook. No line waits: one for which there is no room is dropped and counted,
//! or kept until there is. `events` has a function for every event; nobody else
//! logs.

pub(crate) mod events;
mod formatter;
mod line;
mod sink;
mod style;
mod value;
pub(crate) mod wrap;

use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify as Nudge;
use tracing::level_filters::LevelFilter;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;

use self::formatter::Formatter;
use self::line::Line;
use self::sink::Sink;
use self::style::Style;
use crate::policy::log_style::LogStyle;
use crate::system::outlet::Outlet;

/// The one way to standard error, from `init` on. Its holder never waits for
/// anything, so neither do those who wait for the lock.
static SINK: Mutex<Option<Sink<io::Stderr>>> = Mutex::new(None);

/// Something was left unwritten.
static HAS_FALLEN_BEHIND: Nudge = Nudge::const_new();

/// Sends every event of this level or a graver one to standard error in this
/// style, and panics as well.
pub(crate) fn init(level: LevelFilter, style: &LogStyle) {
    let style = style::establish(Style::new(style, style::has_colours()));
    *sink() = Some(Sink::new(Outlet::new(io::stderr())));
    // It fails when a subscriber is there already, and then that one stays.
    let _ = tracing::subscriber::set_global_default(subscriber(level, style, || ToStderr));
    panic::set_hook(Box::new(|info| {
        if LevelFilter::current() == LevelFilter::OFF {
            return;
        }
        // Not through tracing, whose thread locals may be gone; and a panic
        // while the lock is held must not wait for it.
        let line = events::panicked(info);
        if let Ok(mut sink) = SINK.try_lock()
            && let Some(sink) = sink.as_mut()
        {
            sink.write_line(line.as_bytes());
        }
    }));
    if style.is_cut {
        events::log_fields_cut();
    }
}

/// Lines that could not be written since castoff started.
pub(crate) fn dropped() -> u64 {
    sink().as_ref().map_or(0, Sink::dropped)
}

/// Whether castoff's own lines that find no room are kept, as far as there is
/// space, and go out before the next of the child's. Otherwise they are dropped.
pub(crate) fn keep_lines(keeps_lines: bool) {
    with_sink(|sink| sink.keep_lines(keeps_lines));
}

/// Writes lines of the child's, whole and as far as there is room, behind
/// castoff's own; returns how many bytes are taken care of.
///
/// # Errors
/// As of `Outlet::write_lines`; everything counts as written before `init`.
pub(crate) fn write_lines(lines: &[u8]) -> io::Result<usize> {
    with_sink(|sink| sink.write_lines(lines)).unwrap_or(Ok(lines.len()))
}

/// So many lines of the child's cannot be written. They count as lines of the
/// log's own do, and unless the level forbids warnings a line will say so.
pub(crate) fn child_lines_lost(count: u64) {
    let is_told = LevelFilter::current() >= LevelFilter::WARN;
    with_sink(|sink| sink.lines_lost(count, is_told));
}

/// Whether that descriptor leads to where the log goes. What is written there by
/// another way could get between the parts of a line that was begun.
pub(crate) fn leads_to(fd: impl AsFd) -> bool {
    with_sink(|sink| sink.leads_to(fd)).unwrap_or(false)
}

/// Waits until there may be room for lines of the child's. Cancel safe.
pub(crate) async fn room() {
    let opening = sink().as_ref().map(Sink::opening);
    if let Some(opening) = opening {
        opening.wait().await;
    }
}

/// Waits until something of the log is left to be written and may have room;
/// then `catch_up` does it. It costs nothing while nothing is left. Cancel safe.
pub(crate) async fn backlog() {
    loop {
        let opening = sink().as_ref().filter(|sink| sink.is_behind()).map(Sink::opening);
        match opening {
            Some(opening) => return opening.wait().await,
            None => HAS_FALLEN_BEHIND.notified().await,
        }
    }
}

/// Writes what has found no room before, among it the report of lines that were
/// lost, as far as there is room now.
///
/// # Errors
/// As of `Outlet::finish_line`: something is left.
pub(crate) fn catch_up() -> io::Result<()> {
    with_sink(Sink::catch_up).unwrap_or(Ok(()))
}

/// Text for a person, which is no event: as lines of the log it must not wait.
/// It ends with a newline.
pub(crate) fn tell(text: &str) {
    with_sink(|sink| sink.write_line(text.as_bytes()));
}

/// A line that tracing has no event for. The level is the caller's to ask for.
fn write(line: &Line) {
    with_sink(|sink| sink.write_line(line.as_bytes()));
}

fn with_sink<T>(act: impl FnOnce(&mut Sink<io::Stderr>) -> T) -> Option<T> {
    let mut sink = sink();
    let sink = sink.as_mut()?;
    let done = act(sink);
    if sink.is_behind() {
        HAS_FALLEN_BEHIND.notify_one();
    }
    Some(done)
}

fn sink() -> MutexGuard<'static, Option<Sink<io::Stderr>>> {
    SINK.lock().unwrap_or_else(PoisonError::into_inner)
}

fn subscriber<W>(
    level: LevelFilter,
    style: &'static Style,
    writer: W,
) -> impl Subscriber + Send + Sync
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    tracing_subscriber::fmt()
        .log_internal_errors(false) // it would print them with a write that may block
        .with_max_level(level)
        .event_format(Formatter { style })
        .with_writer(writer)
        .finish()
        .with(filter_fn(is_own))
}

/// The log is castoff's. Libraries have events of their own, without an `event`
/// and without an end (h2 tells of each frame).
fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with(env!("CARGO_CRATE_NAME"))
}

/// What tracing writes its lines to: one call, one line.
struct ToStderr;

impl io::Write for ToStderr {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        with_sink(|sink| sink.write_line(line));
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod reading;

#[cfg(test)]
mod capture {
    //! Reads back what was logged, for the tests of this module.

    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::level_filters::LevelFilter;

    use super::style::{self, Style};

    #[derive(Clone, Default)]
    struct Capture(Arc<Mutex<Vec<String>>>);

    impl io::Write for Capture {
        fn write(&mut self, line: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().push(String::from_utf8(line.to_vec()).unwrap());
            Ok(line.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// The lines that `act` logs, each without its time and newline. One write
    /// is one line.
    pub(super) fn lines_of(act: impl FnOnce()) -> Vec<String> {
        lines_in(style::current(), act).iter().map(|line| without_time(line)).collect()
    }

    /// The same in any style, and whole.
    pub(super) fn lines_in(style: &'static Style, act: impl FnOnce()) -> Vec<String> {
        let capture = Capture::default();
        let writer = capture.clone();
        let subscriber = super::subscriber(LevelFilter::TRACE, style, move || writer.clone());
        tracing::subscriber::with_default(subscriber, act);
        let lines = capture.0.lock().unwrap();
        lines.clone()
    }

    pub(super) fn without_time(line: &str) -> String {
        let rest = line.strip_prefix(r#"{"time":""#).unwrap();
        let (time, rest) = rest.split_once(r#"","#).unwrap();
        assert_eq!(time.len(), "2026-11-20T10:00:00.123456Z".len(), "{time}");
        humantime::parse_rfc3339(time).unwrap();
        rest.strip_suffix('\n').unwrap().to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};
    use std::time::Duration;

    use super::reading::{FORMATS, Read};
    use super::*;
    use crate::policy::log_style::Severity;

    const IN_OWN_PROCESS: &str = "LOG_TEST_IN_OWN_PROCESS";

    /// The part that changes the whole process: `init` and a panic.
    #[test]
    fn in_own_process() {
        let Some(place) = std::env::var_os(IN_OWN_PROCESS) else { return };
        let place: usize = place.to_str().unwrap().parse().unwrap();
        let fields = vec![("team".to_owned(), "a".to_owned())];
        let style = LogStyle { format: FORMATS[place], fields, ..LogStyle::default() };
        init(LevelFilter::INFO, &style);
        let reaped = |is_warning| {
            events::orphan_reaped(9, crate::policy::exit::ExitReason::Code(0), is_warning);
        };
        reaped(false);
        reaped(true);
        events::exiting(0, Some(Duration::from_millis(5)));
        assert!(panic::catch_unwind(|| panic!("of {}", "no use")).is_err());
        assert_eq!(dropped(), 0);
    }

    #[test]
    fn the_events_of_libraries_are_not_in_the_log() {
        let lines = capture::lines_of(|| {
            tracing::error!(target: "h2::codec", "received");
            let _span = tracing::info_span!(target: "h2", "Connection").entered();
            tracing::trace!(event = "tested", "own");
        });
        assert_eq!(lines, [r#""level":"TRACE","msg":"own","event":"tested"}"#]);
    }

    #[test]
    fn events_and_panics_go_to_standard_error_from_the_level_on() {
        for (place, format) in FORMATS.into_iter().enumerate() {
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "log::tests::in_own_process"])
                .env(IN_OWN_PROCESS, place.to_string())
                .stdout(Stdio::null())
                .output()
                .unwrap();
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(output.status.success(), "{text}");
            let lines: Vec<_> =
                text.lines().map(|line| Read::of(format, &format!("{line}\n"))).collect();
            let told = lines.iter().map(|line| (line.level, line.event.as_str()));
            let expected = [
                (Severity::Warn, "orphan_reaped"),
                (Severity::Info, "exiting"),
                (Severity::Error, "internal_error"),
            ];
            assert!(told.eq(expected), "{text}");
            assert!(lines.iter().all(|line| line.common("team") == Some(&"a".into())), "{text}");
            let [_, _, panicked] = &lines[..] else { panic!("{text}") };
            assert_eq!(panicked.own("cause"), Some(&"of no use".into()));
            let location = panicked.own("location").and_then(|location| location.as_str());
            assert!(location.is_some_and(|at| at.starts_with("src/log.rs:")), "{text}");
        }
    }
}
