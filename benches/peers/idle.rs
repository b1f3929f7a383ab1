//! What an init costs while nothing happens: its memory, and how often it wakes.

use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use nix::poll::{PollTimeout, poll};

use crate::process::Running;
use crate::programs::Programs;
use crate::statistics::quantile;
use crate::subject;
use crate::table::Table;
use crate::targets::Targets;

/// Of each subject, all idle at the same time.
const INSTANCES: usize = 5;
const SETTLE_MS: u16 = 500;
const IDLE_MS: u16 = 10_000;
/// What the kubelet asks in a few minutes.
const PROBES: usize = 20;

/// An idle subject, and what it had used when the time began.
struct Idle {
    running: Running,
    switches: u64,
    cpu: u64,
}

/// One instance's figures, and the median of several.
#[derive(Clone, Copy)]
struct Usage {
    switches: f64,
    cpu_us: f64,
    threads: f64,
    rss: f64,
    private_dirty: f64,
}

pub(crate) fn run(programs: &Programs, targets: &mut Targets) -> Result<(), Box<dyn Error>> {
    let subjects = subject::with_peers([subject::castoff()]);
    let mut all = Vec::new();
    for subject in subjects.iter().cycle().take(INSTANCES * subjects.len()) {
        let mut running = Running::start(subject, &programs.listener)?;
        let _: [u64; 3] = running.read_words()?;
        all.push(Idle { running, switches: 0, cpu: 0 });
    }
    poll(&mut [], PollTimeout::from(SETTLE_MS))?;
    for idle in &mut all {
        idle.switches = switches(&idle.running)?;
        idle.cpu = idle.running.cpu_time()?;
    }
    poll(&mut [], PollTimeout::from(IDLE_MS))?;
    let usages = all
        .iter()
        .map(|idle| Ok((idle.running.name, usage(idle)?)))
        .collect::<Result<Vec<_>, Box<dyn Error>>>()?;

    let mut probed = Vec::new();
    for mut idle in all {
        if idle.running.name == "castoff" {
            let address = listen_address(&mut idle.running)?;
            for path in ["/livez", "/readyz"].iter().cycle().take(PROBES) {
                probe(&address, path)?;
            }
            probed.push(usage(&idle)?);
        }
        idle.running.stop()?;
    }

    println!("\n## idle: {} s of nothing (KiB; medians of {INSTANCES})\n", IDLE_MS / 1000);
    println!("castoff with its endpoints up and its default log. Resident memory is mostly the");
    println!("file's own pages, shared and dropped at will; Private_Dirty is what it costs.\n");
    let mut table =
        Table::new(&["subject", "context switches", "CPU µs", "threads", "RSS", "Private_Dirty"]);
    for subject in &subjects {
        let own = usages.iter().filter(|(name, _)| *name == subject.name).map(|(_, usage)| *usage);
        let usage = median(&own.collect::<Vec<_>>());
        row(&mut table, subject.name, &usage);
        if subject.name == "castoff" {
            targets.add("idle, context switches", usage.switches, 0.0, "");
            targets.add("idle, threads", usage.threads, 1.0, "");
            targets.add("idle, Private_Dirty", usage.private_dirty, 250.0, "KiB");
            targets.add("idle, RSS", usage.rss, 2000.0, "KiB");
        }
    }
    let after = median(&probed);
    let name = format!("castoff, after {PROBES} probes");
    table.row([
        name,
        "-".into(),
        "-".into(),
        number(after.threads),
        number(after.rss),
        number(after.private_dirty),
    ]);
    println!("{table}");
    Ok(())
}

fn row(table: &mut Table, name: &str, usage: &Usage) {
    let Usage { switches, cpu_us, threads, rss, private_dirty } = *usage;
    let figures = [switches, cpu_us, threads, rss, private_dirty].map(number);
    table.row(std::iter::once(name.to_owned()).chain(figures));
}

fn number(value: f64) -> String {
    format!("{value:.0}")
}

fn usage(idle: &Idle) -> Result<Usage, Box<dyn Error>> {
    let running = &idle.running;
    let memory = running.proc("smaps_rollup")?;
    Ok(Usage {
        switches: (switches(running)? - idle.switches) as f64,
        cpu_us: (running.cpu_time()? - idle.cpu) as f64 / 1000.0,
        threads: field(&running.proc("status")?, "Threads")? as f64,
        rss: field(&memory, "Rss")? as f64,
        private_dirty: field(&memory, "Private_Dirty")? as f64,
    })
}

fn median(usages: &[Usage]) -> Usage {
    let of = |field: fn(&Usage) -> f64| {
        let values: Vec<f64> = usages.iter().map(field).collect();
        quantile(&values, 0.5)
    };
    Usage {
        switches: of(|usage| usage.switches),
        cpu_us: of(|usage| usage.cpu_us),
        threads: of(|usage| usage.threads),
        rss: of(|usage| usage.rss),
        private_dirty: of(|usage| usage.private_dirty),
    }
}

/// Context switches so far, of the first thread; `threads` shows others.
fn switches(running: &Running) -> Result<u64, Box<dyn Error>> {
    let status = running.proc("status")?;
    Ok(field(&status, "voluntary_ctxt_switches")? + field(&status, "nonvoluntary_ctxt_switches")?)
}

/// The number behind `name:` in a file of /proc.
fn field(text: &str, name: &str) -> Result<u64, Box<dyn Error>> {
    let value = |line: &str| {
        line.strip_prefix(name)?.strip_prefix(':')?.split_whitespace().next()?.parse().ok()
    };
    text.lines().find_map(value).ok_or_else(|| format!("/proc tells no {name}").into())
}

/// Where castoff says that it listens.
fn listen_address(running: &mut Running) -> Result<String, Box<dyn Error>> {
    running.drain();
    let address = String::from_utf8_lossy(&running.log).lines().find_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        (line.get("event")? == "castoff_started")
            .then(|| line.get("listen")?.as_str().map(str::to_owned))?
    });
    address.ok_or_else(|| "castoff does not say where it listens".into())
}

/// Asks as the kubelet does: a new connection each time.
fn probe(address: &str, path: &str) -> Result<(), Box<dyn Error>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.starts_with("HTTP/1.1 200 ") {
        true => Ok(()),
        false => Err(format!("castoff: {path} is answered with {answer:?}").into()),
    }
}
