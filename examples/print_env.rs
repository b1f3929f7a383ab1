//! A child that prints all that a process inherits, a fact a line, and ends.
//! Run it with and without castoff in front: the difference is what castoff
//! adds on purpose.
#![expect(unsafe_code, reason = "a child that plays with processes and signals")]

use std::fs;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

fn main() -> io::Result<()> {
    let mut out = io::stdout().lock();
    for argument in std::env::args_os().skip(1) {
        fact(&mut out, "argument", argument.as_bytes())?;
    }
    // From the kernel's copy: std leaves out entries without a `=`.
    for entry in fs::read("/proc/self/environ")?.split_inclusive(|byte| *byte == 0) {
        fact(&mut out, "env", entry.strip_suffix(b"\0").unwrap_or(entry))?;
    }
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        let kept = ["SigBlk", "SigIgn", "Umask", "Uid", "Gid", "Groups", "CapEff", "NoNewPrivs"];
        if let Some((name, value)) = line.split_once(':').filter(|(name, _)| kept.contains(name)) {
            fact(&mut out, name, value.trim().as_bytes())?;
        }
    }
    for line in fs::read_to_string("/proc/self/limits")?.lines().skip(1) {
        fact(&mut out, "limit", line.trim_end().as_bytes())?;
    }
    fact(&mut out, "cwd", std::env::current_dir()?.as_os_str().as_bytes())?;
    // SAFETY: getpriority takes two numbers.
    let nice = unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
    fact(&mut out, "nice", nice.to_string().as_bytes())?;
    let mut descriptors: Vec<_> = fs::read_dir("/proc/self/fd")?
        .flatten()
        .filter_map(|entry| Some((entry.file_name(), fs::read_link(entry.path()).ok()?)))
        // The one by which the directory itself is read.
        .filter(|(_, target)| !target.starts_with("/proc"))
        .collect();
    descriptors.sort();
    for (number, target) in descriptors {
        let target = target.as_os_str().as_bytes();
        fact(&mut out, "descriptor", &[number.as_bytes(), b" ", target].concat())?;
    }
    // SAFETY: these take nothing, or a descriptor that need not be open.
    let (pid, group, front) =
        unsafe { (libc::getpid(), libc::getpgrp(), libc::tcgetpgrp(libc::STDIN_FILENO)) };
    fact(&mut out, "leads_its_group", (pid == group).to_string().as_bytes())?;
    fact(&mut out, "is_foreground", (group == front).to_string().as_bytes())
}

fn fact(out: &mut impl Write, name: &str, value: &[u8]) -> io::Result<()> {
    write!(out, "{name}\t")?;
    out.write_all(value)?;
    out.write_all(b"\n")
}
