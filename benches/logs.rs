//! What it costs to make each line of the child's a line of the log: `cargo bench
//! --bench logs [-- N]` prints, for N (1,000,000) lines of 200 bytes and as many
//! bytes of others, how fast they pass from one pipe to another, and how much CPU
//! time whoever stands in between takes: castoff, against `cat`, which only
//! copies, `s6-log`, which puts a time before each line, and a line of Python.
//!
//! The writer and the reader are this program itself. It must never fail because
//! of a speed, and always when a line is lost or is none.
#![expect(clippy::expect_used, reason = "a measurement that fails says so and ends")]

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

const LINES: usize = 1_000_000;

/// Of each subject and kind; the best counts, for whatever else runs only adds.
const ROUNDS: usize = 5;

/// Marks the process that writes: the kind, and how many lines of 200 bytes.
const WRITE: &str = "--write";

/// Reads each line and writes it as an object.
const PYTHON: &str = "import sys, json, time
for line in sys.stdin:
    print(json.dumps({'time': time.time(), 'level': 'INFO', 'msg': line[:-1], 'stream': 'stdout'}))";

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    Long,
    Object,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Plain, Self::Long, Self::Object];

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "200 bytes",
            Self::Long => "16,000 bytes",
            Self::Object => "JSON, 200 bytes",
        }
    }

    fn of(word: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.name() == word).expect("a kind")
    }

    /// One line, its newline included.
    fn line(self) -> Vec<u8> {
        let text = "GET /api/v1/orders/4711?page=2 HTTP/1.1 200 took 12 ms for client 10.0.0.7; ";
        let (start, end, length) = match self {
            Self::Plain => ("", "\n", 200),
            Self::Long => ("", "\n", 16_000),
            Self::Object => (r#"{"level":"info","logger":"http","n":4711,"msg":""#, "\"}\n", 200),
        };
        let middle = text.bytes().cycle().take(length - start.len() - end.len());
        start.bytes().chain(middle).chain(end.bytes()).collect()
    }

    /// As many bytes as so many lines of 200.
    fn count(self, lines: usize) -> usize {
        lines * 200 / self.line().len()
    }
}

/// Who stands between the writer and the reader.
struct Subject {
    name: &'static str,
    /// The words before those of the writer, which it starts itself; or else it
    /// reads its standard input.
    launches: bool,
    command: fn() -> Command,
}

const SUBJECTS: [Subject; 4] = [
    Subject { name: "cat", launches: false, command: || Command::new("cat") },
    Subject {
        name: "castoff",
        launches: true,
        command: || {
            let mut castoff = Command::new(env!("CARGO_BIN_EXE_castoff"));
            castoff.env("CASTOFF_CHILD_LOGS", "json").env("CASTOFF_HEALTH_LISTEN", "off");
            castoff.env("CASTOFF_LOG_LEVEL", "off").arg("--");
            castoff
        },
    },
    Subject {
        name: "s6-log",
        launches: false,
        command: || {
            let mut log = Command::new("s6-log");
            log.args(["-l", "0", "T", "1"]); // lines of any length
            log
        },
    },
    Subject {
        name: "python3",
        launches: false,
        command: || {
            let mut python = Command::new("python3");
            python.args(["-c", PYTHON]);
            python
        },
    },
];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if let [first, kind, count] = arguments.as_slice()
        && first == WRITE
    {
        return write(Kind::of(kind), count.parse().expect("a number"));
    }
    // Also built, and run without this word, by `cargo test --all-targets`.
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("logs: run by `cargo bench --bench logs`");
        return;
    }
    let lines = arguments.iter().find_map(|argument| argument.parse().ok()).unwrap_or(LINES);
    println!(
        "| lines | through | million lines/s | MB/s | CPU s per million lines | MB/s of its own CPU | x cat |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- |");
    for kind in Kind::ALL {
        let mut floor = None;
        for subject in &SUBJECTS {
            if subject.name == "python3" && lines > LINES {
                continue;
            }
            let passes: Option<Vec<_>> = (0..ROUNDS).map(|_| pass(subject, kind, lines)).collect();
            let Some(passes) = passes else {
                println!("| {} | {} | not installed |", kind.name(), subject.name);
                continue;
            };
            let best = |time: fn(&Pass) -> Duration| passes.iter().map(time).min().expect("rounds");
            let (elapsed, cpu) =
                (best(|pass| pass.elapsed).as_secs_f64(), best(|pass| pass.cpu).as_secs_f64());
            let count = kind.count(lines) as f64;
            let bytes = count * kind.line().len() as f64;
            let floor = *floor.get_or_insert(cpu);
            println!(
                "| {} | {} | {:.2} | {:.0} | {:.3} | {:.0} | {:.2} |",
                kind.name(),
                subject.name,
                count / elapsed / 1e6,
                bytes / elapsed / 1e6,
                cpu / count * 1e6,
                bytes / cpu / 1e6,
                cpu / floor,
            );
        }
    }
}

/// What a subject took for all lines.
struct Pass {
    elapsed: Duration,
    /// Its own CPU time, the kernel's for it included.
    cpu: Duration,
}

/// `None`: there is no such program here.
fn pass(subject: &Subject, kind: Kind, lines: usize) -> Option<Pass> {
    let count = kind.count(lines);
    let mut writer = Command::new(own());
    writer.args([WRITE, kind.name(), &count.to_string()]);
    let mut middle = (subject.command)();
    middle.stdout(Stdio::piped());
    let mut source: Option<Child> = None;
    if subject.launches {
        middle.arg(own()).args(writer.get_args());
    } else {
        let (reader, end) = std::io::pipe().expect("a pipe");
        source = Some(writer.stdout(end).spawn().expect("the writer"));
        drop(writer);
        middle.stdin(reader);
    }
    let begun = Instant::now();
    let Ok(mut middle_child) = middle.spawn() else {
        drop(middle);
        source.map(|mut source| source.wait().expect("the writer"));
        return None;
    };
    drop(middle);
    let mut output = middle_child.stdout.take().expect("a pipe");
    let mut buffer = vec![0; 256 * 1024];
    let mut seen = 0;
    loop {
        match output.read(&mut buffer).expect("a pipe") {
            0 => break,
            read => seen += newlines(buffer.get(..read).unwrap_or_default()),
        }
    }
    let elapsed = begun.elapsed();
    assert_eq!(seen, count, "{}", subject.name);
    if let Some(mut source) = source {
        assert!(source.wait().expect("the writer").success());
    }
    let before = cpu_of_children();
    assert!(middle_child.wait().expect("it has ended").success(), "{}", subject.name);
    let mut cpu = cpu_of_children() - before;
    if subject.launches {
        // The writer is its child: what that takes by itself is not its own.
        cpu = cpu.saturating_sub(written_alone(kind, count));
    }
    Some(Pass { elapsed, cpu })
}

/// The writer's CPU time with a reader that only reads.
fn written_alone(kind: Kind, count: usize) -> Duration {
    let mut writer = Command::new(own())
        .args([WRITE, kind.name(), &count.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the writer");
    let mut output = writer.stdout.take().expect("a pipe");
    let mut buffer = vec![0; 256 * 1024];
    while output.read(&mut buffer).expect("a pipe") > 0 {}
    let before = cpu_of_children();
    assert!(writer.wait().expect("the writer").success());
    cpu_of_children() - before
}

fn own() -> PathBuf {
    std::env::current_exe().expect("a path")
}

fn newlines(bytes: &[u8]) -> usize {
    bytes.iter().filter(|byte| **byte == b'\n').count()
}

fn cpu_of_children() -> Duration {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("usage");
    let time = usage.user_time() + usage.system_time();
    Duration::from_micros(u64::try_from(time.num_microseconds()).unwrap_or_default())
}

/// As a program with a buffer of the usual size does.
fn write(kind: Kind, count: usize) {
    let line = kind.line();
    let mut out = std::io::BufWriter::with_capacity(64 * 1024, std::io::stdout().lock());
    for _ in 0..count {
        out.write_all(&line).expect("a reader");
    }
    out.flush().expect("a reader");
}
