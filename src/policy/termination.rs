//! The termination message: why a container ended, for whoever reads it in the
//! Pod's status.
//!
//! Owns its words and its size. The first line is the cause in a sentence, with
//! the exit code. Nobody's arguments or variables are in it, and of a check that
//! fails only the name: more people may read a Pod's status than its log. Output
//! is in it only where the child's goes through castoff: the last lines of stderr.

use std::fmt::{self, Write};
use std::time::Duration;

use super::death::{Death, Origin, Reason, Sender};
use super::exit::ExitReason;
use super::lifecycle::{Cause, PhaseChange};
use super::limits::{Limit, Limits};
use super::oom::Victim;
use super::signal::Signal;
use super::status::PhaseName;

/// What a kubelet reads of the file
/// (kubernetes.io: determine the reason for Pod failure).
pub(crate) const LONGEST: usize = 4096;

/// A line gets this many bytes, so that one long name leaves room for the rest.
const LONGEST_LINE: usize = 512;

/// How many changes of the phase are told: of a child that was restarted again
/// and again, the last ones.
pub(crate) const PASSAGES_TOLD: usize = 16;

/// How many names a line holds.
pub(crate) const NAMES_TOLD: usize = 8;

/// The last line, by which castoff knows its own text from the program's.
const SIGNATURE: &str = concat!("(castoff ", env!("CARGO_PKG_VERSION"), ")\n");

/// Why it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The child did.
    Child(Death),
    /// There was no child, or not again; why, if that is known.
    NotStarted(NotStarted),
}

/// What kept the child from being started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NotStarted {
    /// Its program cannot be run.
    Program(String),
    PreStart,
    /// What CASTOFF_WAIT_FOR names has not passed.
    Wait,
}

/// How often the OOM killer came in this life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OomTally {
    pub(crate) child: u64,
    pub(crate) descendant: u64,
    pub(crate) group: u64,
}

impl OomTally {
    pub(crate) fn add(&mut self, count: u64, victim: Victim) {
        let total = match victim {
            Victim::Child => &mut self.child,
            Victim::Descendant => &mut self.descendant,
            Victim::Group => &mut self.group,
        };
        *total = total.saturating_add(count);
    }
}

/// A stop that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StopStory {
    pub(crate) signal: Signal,
    pub(crate) sender: Sender,
    /// From the request to now.
    pub(crate) elapsed: Duration,
    /// From the request to castoff's own SIGKILL.
    pub(crate) killed_after: Duration,
}

/// A change of the phase, and when: since castoff's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Passage {
    pub(crate) at: Duration,
    pub(crate) change: PhaseChange,
}

/// Who was left to be killed: some of the names, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Left {
    pub(crate) names: Vec<String>,
    pub(crate) total: usize,
}

/// What is known at the end.
#[derive(Clone, Debug)]
pub(crate) struct Story<'a> {
    pub(crate) end: &'a End,
    pub(crate) exit_code: u8,
    /// argv[0].
    pub(crate) command: &'a str,
    /// Of the child that ran last.
    pub(crate) uptime: Option<Duration>,
    pub(crate) restarts: u64,
    /// So many restarts in a row were all that was allowed.
    pub(crate) gave_up_after: Option<u32>,
    /// An OOM kill of another than the child came shortly before.
    pub(crate) is_after_oom: bool,
    pub(crate) oom: OomTally,
    pub(crate) limits: &'a Limits,
    pub(crate) stop: Option<&'a StopStory>,
    pub(crate) passages: &'a [Passage],
    pub(crate) left: &'a Left,
    /// castoff ends although the child still runs: not even SIGKILL has ended it.
    pub(crate) has_child_outlived: bool,
    /// Names of checks that did not pass.
    pub(crate) failing: &'a [&'a str],
    /// What the child has written to stderr last, oldest first; as much of it as
    /// fits goes before the phases.
    pub(crate) last_words: &'a [String],
}

/// At most `LONGEST` bytes, whatever anything in it is called; each line ends.
pub(crate) fn compose(story: &Story<'_>) -> String {
    let mut message = Message::default();
    message.headline(&Sentence(story).to_string(), story.exit_code);
    facts(story, &mut message);
    message.quote("last lines of stderr:", story.last_words);
    if !story.passages.is_empty() {
        message.line(format_args!("phases, since castoff was started:"));
    }
    let told = story.passages.len().saturating_sub(PASSAGES_TOLD);
    for Passage { at, change } in story.passages.iter().skip(told) {
        let (from, to) = (change.from.as_str(), change.to.as_str());
        let cause = change.cause.as_str();
        message.line(format_args!("  {} ms: {from} -> {to} ({cause})", at.as_millis()));
    }
    message.signed()
}

/// The message of a castoff that ends before there is anything to tell of.
pub(crate) fn compose_failure(cause: &str, exit_code: u8) -> String {
    let mut message = Message::default();
    message.headline(&format!("child not started, {cause}"), exit_code);
    message.signed()
}

/// Whether castoff has written it, in whichever life.
pub(crate) fn is_castoffs(text: &[u8]) -> bool {
    let last = text.strip_suffix(b")\n").and_then(|text| text.rsplit(|byte| *byte == b'\n').next());
    text.len() <= LONGEST && last.is_some_and(|line| line.starts_with(b"(castoff "))
}

fn facts(story: &Story<'_>, message: &mut Message) {
    let Story { limits, oom, .. } = story;
    if let Some(uptime) = story.uptime {
        let uptime = Seconds(uptime);
        message.line(format_args!("child: {}, ran for {uptime}", story.command));
    }
    match (story.restarts, story.gave_up_after) {
        (0, None) => {}
        (restarts, None) => message.line(format_args!("restarts: {restarts}")),
        (restarts, Some(limit)) => message.line(format_args!(
            "restarts: {restarts}; {limit} in a row is the limit, castoff has given up"
        )),
    }
    let mut known = Vec::new();
    known.extend(limits.cpus.as_ref().map(|limit| format!("{} CPUs", limit.value)));
    known
        .extend(limits.memory_bytes.as_ref().map(|limit| format!("memory {}", Bytes(limit.value))));
    known.extend(limits.pids.as_ref().map(|limit| format!("{} processes", limit.value)));
    if !known.is_empty() {
        message.line(format_args!("limits: {}", known.join(", ")));
    }
    if *oom != OomTally::default() {
        let OomTally { child, descendant, group } = oom;
        message.line(format_args!(
            "killed by the OOM killer: the child {child}, descendants {descendant}, with the group {group}"
        ));
    }
    if let Some(StopStory { signal, sender, elapsed, killed_after }) = story.stop {
        let (elapsed, killed_after) = (Seconds(*elapsed), Seconds(*killed_after));
        message.line(format_args!(
            "stop: {signal} from {sender}, {elapsed} ago; SIGKILL was due after {killed_after}"
        ));
    }
    if story.left.total > 0 {
        let Left { names, total } = story.left;
        let names: Vec<_> = names.iter().map(String::as_str).collect();
        message.line(format_args!("left to be killed: {total} ({})", Names(&names, *total)));
    }
    if !story.failing.is_empty() {
        let names = Names(story.failing, story.failing.len());
        message.line(format_args!("checks that did not pass: {names}"));
    }
}

/// The cause, without the exit code.
struct Sentence<'a>(&'a Story<'a>);

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(story) = self;
        match story.end {
            End::NotStarted(NotStarted::Program(cause)) => {
                write!(f, "child not started, {cause}")
            }
            End::NotStarted(NotStarted::PreStart) => {
                f.write_str("child not started, the pre-start hook has failed")
            }
            End::NotStarted(NotStarted::Wait) => {
                f.write_str("child not started, what CASTOFF_WAIT_FOR names has not passed in time")
            }
            End::Child(death) => {
                death_in_words(death, story, f)?;
                if death.is_core_dumped {
                    f.write_str(", core dumped")?;
                }
                if story.is_after_oom && death.reason != Reason::OomKilled {
                    f.write_str(", just after the OOM killer had killed a descendant")?;
                    at_limit(&story.limits.memory_bytes, f)?;
                }
                Ok(())
            }
        }
    }
}

fn death_in_words(death: &Death, story: &Story<'_>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match (death.reason, death.exit) {
        (Reason::OomKilled, _) => {
            let whole = if story.oom.group > 0 { " with its whole group" } else { "" };
            write!(f, "child killed{whole} by the OOM killer")?;
            at_limit(&story.limits.memory_bytes, f)
        }
        (Reason::KilledAtDeadline, _) => {
            let killed = if story.has_child_outlived { "could not be killed" } else { "killed" };
            write!(f, "child {killed} by castoff")?;
            match story.stop {
                Some(_) if is_kill_asked_for(story.passages) => {
                    f.write_str(" at a third stop signal")
                }
                Some(StopStory { signal, killed_after, .. }) => {
                    write!(f, " at the deadline, {} after {signal}", Seconds(*killed_after))
                }
                None => Ok(()),
            }
        }
        (Reason::Stopped, ExitReason::Code(_)) => f.write_str("child stopped"),
        (_, ExitReason::Code(_)) => f.write_str("child exited by itself"),
        (reason, ExitReason::Signal(signal)) => {
            write!(f, "child ended by {signal}")?;
            match &death.origin {
                Some(Origin::Forwarded(sender)) => write!(f, ", forwarded from {sender}")?,
                Some(Origin::Castoff) => f.write_str(", sent by castoff")?,
                Some(Origin::Fault) => f.write_str(", a fault of its own")?,
                None => f.write_str(", not sent by castoff")?,
            }
            if reason == Reason::Stopped { f.write_str(", while it was stopping") } else { Ok(()) }
        }
    }
}

/// Whether the child's kill came before its time. What follows another phase is
/// that of those whom it has left.
fn is_kill_asked_for(passages: &[Passage]) -> bool {
    let mut changes = passages.iter().rev().map(|passage| passage.change);
    let kill = changes.find(|it| (it.from, it.to) == (PhaseName::Stopping, PhaseName::Killing));
    kill.is_some_and(|kill| kill.cause == Cause::ThirdSignal)
}

fn at_limit(limit: &Option<Limit<u64>>, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    limit.as_ref().map_or(Ok(()), |limit| write!(f, " at {}", Bytes(limit.value)))
}

/// A size as people set it, where it is one; else in MiB, rounded down.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let whole = UNITS.iter().find(|(size, _)| self.0 >= *size && self.0.is_multiple_of(*size));
        match whole {
            Some((size, unit)) => write!(f, "{} {unit}", self.0 / size),
            None if self.0 >= 1 << 20 => write!(f, "{} MiB", self.0 >> 20),
            None => write!(f, "{} bytes", self.0),
        }
    }
}

/// A time in seconds, with milliseconds.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03} s", self.0.as_secs(), self.0.subsec_millis())
    }
}

/// The first names of so many.
struct Names<'a>(&'a [&'a str], usize);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(names, total) = self;
        let told = names.len().min(NAMES_TOLD);
        let names: Vec<_> = names.iter().copied().take(told).map(shortened).collect();
        f.write_str(&names.join(", "))?;
        if *total > told { write!(f, " and {} more", total - told) } else { Ok(()) }
    }
}

/// So that one long name leaves the others room.
fn shortened(name: &str) -> &str {
    up_to(name, LONGEST_LINE / (2 * NAMES_TOLD))
}

/// The text, as far as it fits.
#[derive(Default)]
struct Message(String);

impl Message {
    /// However long the cause is, the code is there.
    fn headline(&mut self, cause: &str, exit_code: u8) {
        let cause = up_to(cause, LONGEST_LINE - ": exit code 255".len());
        self.line(format_args!("{cause}: exit code {exit_code}"));
    }

    fn line(&mut self, line: fmt::Arguments<'_>) {
        let mut text = String::new();
        // Nothing that is told here fails to be.
        let _ = text.write_fmt(line);
        let plain = printable(&text);
        let line = up_to(&plain, LONGEST_LINE);
        if line.len() < self.room() {
            self.0.push_str(line);
            self.0.push('\n');
        }
    }

    /// Lines of somebody else below a heading, each whole: as many of the last as
    /// there is room for.
    fn quote(&mut self, heading: &str, lines: &[String]) {
        const INDENT: &str = "  ";
        let mut room = self.room().saturating_sub(heading.len() + 1);
        let mut told = Vec::new();
        for line in lines.iter().rev().map(|line| printable(line)) {
            let Some(left) = room.checked_sub(INDENT.len() + line.len() + 1) else { break };
            room = left;
            told.push(line);
        }
        if !told.is_empty() {
            self.0.extend([heading, "\n"]);
        }
        for line in told.iter().rev() {
            self.0.extend([INDENT, line, "\n"]);
        }
    }

    /// For lines with their newlines.
    fn room(&self) -> usize {
        LONGEST.saturating_sub(self.0.len() + SIGNATURE.len())
    }

    fn signed(mut self) -> String {
        self.0.push_str(SIGNATURE);
        self.0
    }
}

fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The longest beginning of no more than that many bytes.
fn up_to(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
