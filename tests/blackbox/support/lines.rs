//! What a process writes, collected line by line while it runs.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use serde_json::Value;

use super::wait_until::PATIENCE;

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    is_over: bool,
}

/// The lines of one stream so far. A reader of its own keeps the pipe empty.
#[derive(Clone)]
pub(crate) struct Lines {
    name: &'static str,
    written: Arc<(Mutex<Written>, Condvar)>,
}

impl Lines {
    pub(crate) fn of(name: &'static str, stream: impl Read + Send + 'static) -> Self {
        let lines = Self { name, written: Arc::default() };
        let (mine, reader) = (lines.clone(), BufReader::new(stream));
        std::thread::spawn(move || {
            for line in reader.split(b'\n').map_while(Result::ok) {
                mine.add(|written| {
                    written.lines.push(String::from_utf8_lossy(&line).into_owned());
                });
            }
            mine.add(|written| written.is_over = true);
        });
        lines
    }

    fn add(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.written.0.lock().expect("no holder panics"));
        self.written.1.notify_all();
    }

    /// Waits for the first line that `wanted` takes; panics with everything
    /// written so far when the stream ends, or all patience does, without one.
    #[track_caller]
    pub(crate) fn wait_for<T>(&self, what: &str, wanted: impl Fn(&str) -> Option<T>) -> T {
        let begun = Instant::now();
        let (lock, changed) = &*self.written;
        let mut written = lock.lock().expect("no holder panics");
        loop {
            if let Some(found) = written.lines.iter().find_map(|line| wanted(line)) {
                return found;
            }
            let waits = !written.is_over && begun.elapsed() < PATIENCE;
            assert!(waits, "no {what} on {}:\n{}", self.name, written.lines.join("\n"));
            written = changed.wait_timeout(written, PATIENCE).expect("no holder panics").0;
        }
    }

    /// Waits for a line that begins with `start`.
    #[track_caller]
    pub(crate) fn wait_for_line(&self, start: &str) -> String {
        self.wait_for(start, |line| line.starts_with(start).then(|| line.to_owned()))
    }

    /// Waits for castoff's event of that name.
    #[track_caller]
    pub(crate) fn wait_for_event(&self, event: &str) -> Value {
        self.wait_for(event, |line| as_event(line).filter(|line| line["event"] == event))
    }

    /// Everything written so far.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.written.0.lock().expect("no holder panics").lines.clone()
    }

    /// Everything, once the stream has ended: when every process that holds it
    /// open has.
    #[track_caller]
    pub(crate) fn all(&self) -> Vec<String> {
        let (lock, changed) = &*self.written;
        let written = lock.lock().expect("no holder panics");
        let (written, waited) = changed
            .wait_timeout_while(written, PATIENCE, |written| !written.is_over)
            .expect("no holder panics");
        assert!(!waited.timed_out(), "{} never ends", self.name);
        written.lines.clone()
    }

    /// castoff's events among them, in their order, once the stream has ended.
    #[track_caller]
    pub(crate) fn events(&self) -> Vec<Value> {
        self.all().iter().filter_map(|line| as_event(line)).collect()
    }
}

fn as_event(line: &str) -> Option<Value> {
    serde_json::from_str::<Value>(line).ok().filter(|line| line["event"].is_string())
}
