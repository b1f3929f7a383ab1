//! The way of lines to standard error, and the account of those that were lost.
//!
//! Owns the counting and the line that reports it. A line that finds no room is
//! dropped at once: nothing here waits, repeats or keeps more than the end of
//! one line. The system calls are in `system::stderr`.

use std::os::fd::AsFd;

use super::events;
use crate::system::stderr::Output;

pub(super) struct Sink<F> {
    output: Output<F>,
    /// Lines lost since castoff started.
    dropped: u64,
    /// How many of them no line has told of yet.
    unreported: u64,
}

impl<F: AsFd> Sink<F> {
    pub(super) fn new(output: Output<F>) -> Self {
        Self { output, dropped: 0, unreported: 0 }
    }

    pub(super) fn dropped(&self) -> u64 {
        self.dropped
    }

    /// Writes the line, after a report of the lines that were lost before it.
    pub(super) fn write_line(&mut self, line: &[u8]) {
        if self.unreported > 0 {
            let report = events::log_dropped(self.unreported);
            if self.output.write_line(report.as_bytes()).is_ok() {
                self.unreported = 0;
            }
        }
        // While the report finds no room the line would stand before it.
        if self.unreported > 0 || self.output.write_line(line).is_err() {
            self.dropped += 1;
            self.unreported += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read};

    use super::*;
    use crate::system::stderr::tests::{drain, in_time};

    #[test]
    fn lines_lost_to_a_full_pipe_are_counted_and_reported_once() {
        in_time(|| {
            let (mut reader, writer) = io::pipe().unwrap();
            let mut sink = Sink::new(Output::new(writer));
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
        let mut sink = Sink::new(Output::new(full));
        for _ in 0..3 {
            sink.write_line(b"line\n");
        }
        assert_eq!((sink.dropped(), sink.unreported), (3, 3));
    }
}
