//! The way of lines to standard error, and the account of those that were lost.
//!
//! Owns the order of the lines, castoff's own and those of the child that it
//! wraps, the counting and the line that reports it. Nothing here waits. A line
//! of castoff's own that finds no room is dropped at once, or kept while lines
//! of the child follow, as far as there is space. The system calls are in
//! `system::outlet`.

use std::io::{self, ErrorKind};
use std::os::fd::AsFd;

use super::events;
use crate::system::outlet::{Opening, Outlet};

/// How many bytes of castoff's own lines are kept: some 60 lines.
const KEPT_MAX: usize = 16 * 1024;

pub(super) struct Sink<F> {
    outlet: Outlet<F>,
    /// Lines of castoff's own that wait for room.
    kept: Vec<u8>,
    keeps_lines: bool,
    /// Lines lost since castoff started.
    dropped: u64,
    /// How many of them no line has told of yet. They came after those kept.
    unreported: u64,
}

impl<F: AsFd> Sink<F> {
    pub(super) fn new(outlet: Outlet<F>) -> Self {
        Self { outlet, kept: Vec::new(), keeps_lines: false, dropped: 0, unreported: 0 }
    }

    /// Whether castoff's own lines are kept when there is no room for them.
    pub(super) fn keep_lines(&mut self, keeps_lines: bool) {
        self.keeps_lines = keeps_lines;
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Whether anything is still to be written.
    pub(super) fn is_behind(&self) -> bool {
        self.outlet.has_begun_line() || !self.kept.is_empty() || self.unreported > 0
    }

    /// When there may be room.
    pub(super) fn opening(&self) -> Opening {
        self.outlet.opening()
    }

    /// Writes a line of castoff's own, behind everything that came before it.
    pub(super) fn write_line(&mut self, line: &[u8]) {
        let written = self.catch_up().and_then(|()| self.outlet.write_line(line));
        if written.is_err_and(|error| error.kind() != ErrorKind::WouldBlock || !self.keep(line)) {
            self.lines_lost(1, true);
        }
    }

    /// Writes whole lines as far as there is room for them, behind everything
    /// that came before; returns how many bytes are taken care of.
    ///
    /// # Errors
    /// As of `Outlet::write_lines`.
    pub(super) fn write_lines(&mut self, lines: &[u8]) -> io::Result<usize> {
        self.catch_up()?;
        self.outlet.write_lines(lines)
    }

    /// Lines were lost, here or elsewhere. `is_told`: a line will say so.
    pub(super) fn lines_lost(&mut self, count: u64, is_told: bool) {
        self.dropped = self.dropped.saturating_add(count);
        if is_told {
            self.unreported = self.unreported.saturating_add(count);
        }
    }

    /// Whether that descriptor leads to the same place.
    pub(super) fn leads_to(&self, fd: impl AsFd) -> bool {
        self.outlet.is_same_file(fd)
    }

    /// Writes what is left: of a line that was begun, then of those kept, then
    /// the report of those lost.
    ///
    /// # Errors
    /// Something is still left.
    pub(super) fn catch_up(&mut self) -> io::Result<()> {
        self.outlet.finish_line()?;
        while !self.kept.is_empty() {
            match self.outlet.write_lines(&self.kept) {
                Ok(taken) => drop(self.kept.drain(..taken)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(error),
                Err(error) => {
                    // Nobody knows when it will be whole again, if ever.
                    let lost = self.kept.iter().filter(|byte| **byte == b'\n').count();
                    self.kept.clear();
                    self.lines_lost(u64::try_from(lost).unwrap_or(u64::MAX), true);
                    return Err(error);
                }
            }
        }
        if self.unreported > 0 {
            self.outlet.write_line(events::log_dropped(self.unreported).as_bytes())?;
            self.unreported = 0;
        }
        self.outlet.finish_line()
    }

    /// Keeps the line, and before it the report of those that had no space.
    fn keep(&mut self, line: &[u8]) -> bool {
        let report = (self.unreported > 0).then(|| events::log_dropped(self.unreported));
        let report = report.as_ref().map_or(&[][..], |report| report.as_bytes());
        let has_space = self.kept.len() + report.len() + line.len() <= KEPT_MAX;
        if !self.keeps_lines || !has_space {
            return false;
        }
        self.kept.extend_from_slice(report);
        self.kept.extend_from_slice(line);
        self.unreported = 0;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{PipeReader, PipeWriter, Read};

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::system::outlet::tests::{drain, in_time};

    #[test]
    fn lines_lost_to_a_full_pipe_are_counted_and_reported_once() {
        in_time(|| {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut sink = Sink::new(Outlet::new(writer));
            let line = [b"x".repeat(999), b"\n".to_vec()].concat();
            let mut sent = 0;
            while sink.dropped() < 7 {
                sink.write_line(&line);
                sent += 1;
            }
            let arrived = drain(&mut reader).len() / line.len();
            assert_eq!(arrived, sent - 7);

            sink.write_line(b"first\n");
            sink.write_line(b"second\n");
            assert_eq!(sink.dropped(), 7);
            drop(sink);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            let mut lines = text.lines();
            let report: serde_json::Value = serde_json::from_str(lines.next().unwrap()).unwrap();
            assert_eq!((&report["event"], &report["count"]), (&"log_dropped".into(), &7.into()));
            assert_eq!(lines.collect::<Vec<_>>(), ["first", "second"]);
        });
    }

    #[test]
    fn a_device_without_room_loses_lines_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let mut sink = Sink::new(Outlet::new(full));
        for _ in 0..3 {
            sink.write_line(b"line\n");
        }
        assert_eq!((sink.dropped(), sink.unreported), (3, 3));
    }

    /// A sink to a pipe without room.
    fn full() -> (PipeReader, Sink<PipeWriter>) {
        let (reader, writer) = io::pipe().unwrap();
        let mut sink = Sink::new(Outlet::new(writer));
        let page = [b"x".repeat(4095), b"\n".to_vec()].concat();
        while sink.outlet.write_lines(&page).is_ok() {}
        assert!(!sink.is_behind());
        (reader, sink)
    }

    /// What there is to be read, without that by which the pipe was filled.
    fn lines(reader: &mut PipeReader) -> Vec<String> {
        let text = String::from_utf8(drain(reader)).unwrap();
        text.lines().filter(|line| !line.starts_with("xx")).map(str::to_owned).collect()
    }

    fn count_told(line: &str) -> u64 {
        let report: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(report["event"], "log_dropped");
        report["count"].as_u64().unwrap()
    }

    #[test]
    fn lines_that_are_kept_go_out_in_order_before_the_childs() {
        in_time(|| {
            let (mut reader, mut sink) = full();
            sink.keep_lines(true);
            sink.write_line(b"one\n");
            let refused = sink.write_lines(b"child 1\n").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::WouldBlock);
            sink.write_line(b"two\n");
            assert_eq!((sink.dropped(), sink.is_behind()), (0, true));
            drain(&mut reader);
            assert_eq!(sink.write_lines(b"child 1\nchild 2\n").unwrap(), 16);
            sink.write_line(b"three\n");
            assert_eq!((sink.dropped(), sink.is_behind()), (0, false));
            assert_eq!(lines(&mut reader), ["one", "two", "child 1", "child 2", "three"]);
        });
    }

    #[test]
    fn what_has_no_space_is_counted_and_told_of_where_it_is_missing() {
        in_time(|| {
            let (mut reader, mut sink) = full();
            sink.keep_lines(true);
            let line = [b"k".repeat(99), b"\n".to_vec()].concat();
            let mut sent = 0;
            while sink.dropped() < 5 {
                sink.write_line(&line);
                sent += 1;
            }
            sink.lines_lost(2, true);
            sink.lines_lost(3, false);
            assert!(sink.kept.len() <= KEPT_MAX);
            assert_eq!(sent - 5, KEPT_MAX / line.len());
            drain(&mut reader);
            sink.catch_up().unwrap();
            sink.write_line(b"last\n");
            let lines = lines(&mut reader);
            let (kept, rest) = lines.split_at(sent - 5);
            assert!(kept.iter().all(|line| line.starts_with("kk")));
            assert_eq!((count_told(&rest[0]), &rest[1..]), (7, &["last".to_owned()][..]));
            assert_eq!((sink.dropped(), sink.is_behind()), (10, false));
        });
    }

    #[test]
    fn a_report_is_kept_among_the_lines_when_there_is_space_again() {
        in_time(|| {
            let (mut reader, mut sink) = full();
            sink.write_line(b"lost\n");
            sink.keep_lines(true);
            sink.write_line(b"kept\n");
            sink.keep_lines(false);
            sink.write_line(b"lost\n");
            drain(&mut reader);
            sink.catch_up().unwrap();
            let lines = lines(&mut reader);
            assert_eq!((count_told(&lines[0]), &*lines[1], count_told(&lines[2])), (1, "kept", 1));
            assert_eq!((sink.dropped(), lines.len()), (2, 3));
        });
    }

    #[test]
    fn lines_that_are_kept_for_a_reader_that_has_gone_are_lost() {
        in_time(|| {
            let (reader, mut sink) = full();
            sink.keep_lines(true);
            sink.write_line(b"one\n");
            sink.write_line(b"two\n");
            drop(reader);
            assert_eq!(sink.catch_up().unwrap_err().kind(), ErrorKind::BrokenPipe);
            assert_eq!((sink.dropped(), sink.kept.len()), (2, 0));
            sink.write_line(b"three\n");
            assert_eq!(sink.dropped(), 3);
        });
    }

    proptest! {
        /// Whatever is written while the reader comes and goes: lines arrive
        /// whole and in order, and as many are missing as are told of, there
        /// where they are missing.
        #[test]
        fn each_line_arrives_in_its_order_or_is_counted(
            acts in vec((0..6_u8, 1..4000_usize), 1..120),
        ) {
            let (mut reader, mut sink) = full();
            let mut arrived = drain(&mut reader);
            arrived.clear();
            let mut sent = 0_u64;
            for (act, length) in acts {
                let line = format!("{sent} {}\n", "x".repeat(length));
                match act {
                    0 => arrived.extend(drain(&mut reader)),
                    1 => drop(sink.catch_up()),
                    2 => sink.keep_lines(length.is_multiple_of(2)),
                    3 => if sink.write_lines(line.as_bytes()).is_ok() {
                        sent += 1;
                    },
                    _ => {
                        sink.write_line(line.as_bytes());
                        sent += 1;
                    }
                }
            }
            arrived.extend(drain(&mut reader));
            while sink.catch_up().is_err() {
                arrived.extend(drain(&mut reader));
            }
            arrived.extend(drain(&mut reader));
            let mut next = 0;
            let mut missing = 0;
            for line in String::from_utf8(arrived).unwrap().lines() {
                if line.starts_with('{') {
                    let count = count_told(line);
                    missing += count;
                    next += count;
                } else {
                    prop_assert!(line.starts_with(&format!("{next} x")), "{next}: {line}");
                    next += 1;
                }
            }
            prop_assert_eq!((next, missing), (sent, sink.dropped()));
        }
    }
}
