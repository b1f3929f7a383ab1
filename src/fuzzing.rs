//! What the fuzz targets below `fuzz` call: every parser of bytes that castoff
//! does not write itself. It is compiled for them only.
//!
//! Each takes bytes and returns, or panics when a promise is broken: that there
//! is no panic, no limit of 0 and no answer without a bound. Nothing here reads
//! a file or asks anybody.

use std::path::Path;
use std::time::SystemTime;

use crate::log::wrap::Wrapper;
use crate::policy::grpc_health;
use crate::policy::limits::{self, Found};
use crate::policy::log_style::{Identity, LogFormat, LogStyle, Stream};
use crate::policy::notify::Message;
use crate::{checks, config};

const CGROUP: &str = "/proc/self/cgroup";
const MOUNTINFO: &str = "/proc/self/mountinfo";
const STATUS: &str = "/proc/self/status";
const MEMINFO: &str = "/proc/meminfo";

/// What separates the files of `limits`: no text that the kernel writes has it.
const NEXT_FILE: u8 = 0xff;

/// `/proc/self/cgroup`, beside mounts of both versions.
pub fn cgroup(text: &[u8]) {
    let mountinfo: &[u8] = b"1 1 0:1 / / rw - overlay o rw\n\
        2 1 0:2 / /sys/fs/cgroup rw - cgroup2 c rw\n\
        3 1 0:3 /a /v1 rw - cgroup c rw,cpu,cpuset\n\
        4 1 0:4 /../.. /up rw - cgroup c rw,memory,pids\n";
    sound(&found(text, mountinfo, b"", b"", b"7\n"));
}

/// `/proc/self/mountinfo`, beside groups of both versions.
pub fn mountinfo(text: &[u8]) {
    let cgroup: &[u8] = b"0::/a/b\n1:cpu,cpuset:/a/b:c\n2:memory:/../x\n";
    sound(&found(cgroup, text, b"", b"", b"7\n"));
}

/// The files of limits of both versions, status and meminfo.
pub fn limit(text: &[u8]) {
    let v1: &[u8] = b"1:cpu,cpuset,memory,pids:/a";
    let v1_mount: &[u8] = b"3 1 0:3 / /v1 rw - cgroup c rw,cpu,cpuset,memory,pids";
    for (cgroup, mountinfo) in [(v1, v1_mount), (b"0::/a", b"3 1 0:3 / /v2 rw - cgroup2 c rw")] {
        sound(&found(cgroup, mountinfo, text, text, text));
    }
    limits::throttling(&String::from_utf8_lossy(text));
}

/// All of them at once, separated by 0xff: cgroup, mountinfo, status, meminfo,
/// and any file of a limit.
pub fn limits(files: &[u8]) {
    let mut files = files.splitn(5, |byte| *byte == NEXT_FILE);
    let mut next = || files.next().unwrap_or_default();
    sound(&found(next(), next(), next(), next(), next()));
}

fn found(cgroup: &[u8], mountinfo: &[u8], status: &[u8], meminfo: &[u8], limit: &[u8]) -> Found {
    limits::find(Some(8), |path: &Path| {
        Ok(Some(
            match path.to_str() {
                Some(CGROUP) => cgroup,
                Some(MOUNTINFO) => mountinfo,
                Some(STATUS) => status,
                Some(MEMINFO) => meminfo,
                _ => limit,
            }
            .to_vec(),
        ))
    })
}

fn sound(found: &Found) {
    let limits = &found.limits;
    assert!(limits.cpus.as_ref().is_none_or(|cpus| cpus.value > 0.0 && cpus.value.is_finite()));
    assert!(limits.memory_bytes.as_ref().is_none_or(|bytes| bytes.value > 0));
    assert!(limits.pids.as_ref().is_none_or(|pids| pids.value > 0));
    assert_ne!(limits.affinity, Some(0));
    assert!(found.warnings.len() <= 9);
}

/// A datagram to the NOTIFY_SOCKET.
pub fn notify(datagram: &[u8]) {
    if let Some(message) = Message::parse(datagram) {
        let texts = [&message.status, &message.bus_error, &message.exit_status];
        assert!(texts.into_iter().flatten().all(|text| text.chars().count() <= 256));
        assert!(message.main_pid.is_none_or(|pid| pid > 0));
    }
}

/// A message of grpc.health.v1, as a peer sends it.
pub fn grpc_health(body: &[u8]) {
    let _ = grpc_health::service(body);
}

/// The target of a check, which is printed as it is read.
pub fn target(text: &[u8]) {
    config::fuzzing::target(text);
}

/// The configuration file.
pub fn config_file(text: &[u8]) {
    config::fuzzing::file(text);
}

/// The answer of a name server.
pub fn dns(answer: &[u8]) {
    checks::fuzzing::dns(answer);
}

/// `/etc/hosts` and `/etc/resolv.conf`.
pub fn names(text: &[u8]) {
    checks::fuzzing::files(text);
}

/// What a program writes: the format and stream, the length of a read, how often
/// the rest comes, and the rest. Cuts change nothing, and each line is JSON.
pub fn wrap(bytes: &[u8]) {
    let [kind, cut, times, text @ ..] = bytes else { return };
    let formats =
        [LogFormat::Json, LogFormat::Gcp, LogFormat::Ecs, LogFormat::Otel, LogFormat::Text];
    let format = formats.get(usize::from(*kind) % 5).copied().unwrap_or_default();
    let stream = if *kind < 128 { Stream::Stdout } else { Stream::Stderr };
    let identity = Identity { pod: Some("pod".to_owned()), ..Identity::default() };
    let style = LogStyle { format, fields: vec![("team".to_owned(), "\"".to_owned())], identity };
    let input = text.repeat(1 + usize::from(*times));
    let now = SystemTime::UNIX_EPOCH;

    let mut whole = Vec::new();
    let mut wrapper = Wrapper::new(&style, stream);
    assert_eq!(wrapper.wrap(&input, now, &mut whole, usize::MAX), input.len());
    wrapper.finish(now, &mut whole);
    let lines = wrapper.lines();

    let mut parts = Vec::new();
    let mut wrapper = Wrapper::new(&style, stream);
    for read in input.chunks(1 + usize::from(*cut) * usize::from(*cut)) {
        let mut rest = read;
        while !rest.is_empty() {
            let mut out = Vec::new();
            let taken = wrapper.wrap(rest, now, &mut out, 1);
            rest = rest.get(taken..).unwrap_or_default();
            parts.extend(out);
        }
    }
    wrapper.finish(now, &mut parts);
    assert_eq!((&parts, wrapper.lines()), (&whole, lines));

    for line in whole.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.len() < 16 * 1024 && line.ends_with(b"\n"));
        if format == LogFormat::Text {
            assert!(std::str::from_utf8(line).is_ok());
        } else {
            let object: Result<serde_json::Value, _> = serde_json::from_slice(line);
            assert!(object.is_ok_and(|object| object.is_object()));
        }
    }
}
