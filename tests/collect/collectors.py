"""Every collector gets both streams of the same program, and tells what it has understood."""
import contextlib
import itertools
import json
import os
from pathlib import Path
import shutil
import signal
import socket
import subprocess
import sys

from castoff import HERE, WORK, Castoff, Wrong, equal, until
from lines import STREAMS, lines

# Those of both streams together; and for formats other than `json`.
LINES = 300_000
LINES_OF_FORMATS = 40_000
LINE_MAX = 16 * 1024

PYTHON = ("python3", "-c", f"""
import json, sys
def once(pairs):
    assert len(dict(pairs)) == len(pairs), pairs
    return dict(pairs)
for line in sys.stdin.buffer:
    assert line.endswith(b"\\n") and len(line) < {LINE_MAX}, (len(line), line[:80])
    print(json.dumps(json.loads(line.decode(), object_pairs_hook=once)))
""")
JQ = ("jq", "-c", ".")
NODE = ("node", "-e", """
const lines = require("readline").createInterface({ input: process.stdin, crlfDelay: Infinity });
let out = [];
lines.on("line", (line) => {
  out.push(JSON.stringify(JSON.parse(line)) + "\\n");
  if (out.length === 1000) { process.stdout.write(out.join("")); out = []; }
});
lines.on("close", () => process.stdout.write(out.join("")));
""")

IDENTITY = {"POD_NAME": "web-0", "POD_NAMESPACE": "shop", "NODE_NAME": "node-7",
            "CASTOFF_LOG_FIELDS": "team=blue"}
COMMON = {
    "json": {"pod": "web-0", "namespace": "shop", "node": "node-7", "team": "blue"},
    "gcp": {"pod": "web-0", "namespace": "shop", "node": "node-7", "team": "blue"},
    "ecs": {"kubernetes.pod.name": "web-0", "kubernetes.namespace": "shop",
            "kubernetes.node.name": "node-7", "team": "blue", "ecs.version": "8.11.0"},
    "otel": {"k8s.pod.name": "web-0", "k8s.namespace.name": "shop", "k8s.node.name": "node-7",
             "team": "blue"},
}
# Time, level, message, stream, event.
NAMES = {
    "json": ("time", "level", "msg", "stream", "event"),
    "gcp": ("time", "severity", "message", "stream", "event"),
    "ecs": ("@timestamp", "log.level", "message", "log.iostream", "event.action"),
    "otel": ("Timestamp", "SeverityText", "Body", "log.iostream", "EventName"),
}
# Google's LogSeverity.
GCP_LEVELS = {"DEBUG", "INFO", "NOTICE", "WARNING", "ERROR", "CRITICAL", "ALERT", "EMERGENCY"}


class Material:
    """The lines of a number of them: in files for the program, and as they are expected."""

    def __init__(self, count):
        self.paths, self.expected = [], {}
        for stream in STREAMS:
            path = WORK / f"{stream}-{count}"
            self.paths.append(path)
            self.expected[stream] = []
            with open(path, "wb") as file:
                for line, expected in lines(stream, count // 2):
                    file.write(line)
                    self.expected[stream].append(expected)

    def command(self):
        return ("python3", "-S", HERE / "writer.py", *self.paths)


def flat(found, form):
    """All names at one level: those of OpenTelemetry are in three."""
    if form != "otel":
        return found
    return {**found.get("Resource", {}), **found.get("Attributes", {}), **found}


def check_names(found, form):
    """That a line has what the readers of that format ask for."""
    time, level, message, stream, event = NAMES[form]
    own = event in found and stream not in found
    wanted = [time, level, message]
    if form == "otel":
        wanted.append("SeverityNumber")
        if not (found["Timestamp"].isdigit() and 1 <= found["SeverityNumber"] <= 24):
            raise Wrong(f"no such record of OpenTelemetry: {found}")
    missing = [name for name in wanted if name not in found]
    if missing:
        raise Wrong(f"{form}: no {missing} in {found}")
    if form == "gcp" and found[level] not in GCP_LEVELS:
        raise Wrong(f"no severity of Google's: {found}")
    for name, value in COMMON[form].items():
        equal(f"{form}: {name} in {str(found)[:200]}", found.get(name), value)
    return own


class Lines:
    """What came out of a collector, in its order; pieces are made one."""

    def __init__(self, form, check=None):
        self.form, self.check = form, check
        self.found = {stream: [] for stream in STREAMS}
        self.own = self.split = self.pieces = 0

    def add(self, path):
        _, _, message, stream, event = NAMES[self.form]
        parts, ids = {}, {}
        with open(path, "rb") as file:
            for line in file:
                found = flat(json.loads(line), self.form)
                if self.check:
                    self.check(found, self.form)
                of = found.get(stream)
                if of is None:
                    if event not in found:
                        raise Wrong(f"neither castoff's nor the program's: {found}")
                    self.own += 1
                    continue
                text = found[message]
                if "partial_message" not in found:
                    if of in parts:
                        raise Wrong(f"between pieces of {of}: {text[:80]}")
                    self.found[of].append((text, found))
                    continue
                self.pieces += 1
                piece = parts.setdefault(of, [])
                equal("the id of a piece", found["partial_id"], ids.setdefault(of, found["partial_id"]))
                piece.append(text)
                equal("the ordinal of a piece", found["partial_ordinal"], str(len(piece)))
                if found["partial_last"] == "true":
                    self.found[of].append(("".join(parts.pop(of)), {}))
                    del ids[of]
                    self.split += 1
        if parts:
            raise Wrong(f"{path}: the last piece is missing")

    def compare(self, material, cut_at_nul):
        for stream in STREAMS:
            found, expected = self.found[stream], material.expected[stream]
            for number, (seen, wanted) in enumerate(itertools.zip_longest(found, expected)):
                if seen is None or wanted is None:
                    raise Wrong(f"{stream}: {len(found)} lines instead of {len(expected)}")
                text, members = seen
                wanted_text = wanted.text
                if cut_at_nul and not self.has_split_nul(wanted_text):
                    wanted_text = wanted_text.partition("\0")[0]
                if text != wanted_text:
                    raise Wrong(f"{stream}, line {number}: {text[:200]!r} instead of {wanted_text[:200]!r}")
                for name, value in (wanted.members or {}).items():
                    if cut_at_nul:
                        if name == "n" and str(members[name]) != str(value):
                            raise Wrong(f"{stream}, line {number}: {members} instead of {wanted.members}")
                    elif members[name] != value:
                        raise Wrong(f"{stream}, line {number}: {members} instead of {wanted.members}")

    @staticmethod
    def has_split_nul(text):
        return len(text) >= LINE_MAX

    def words(self):
        total = sum(map(len, self.found.values()))
        return (f"{total} lines of the program in order, {self.split} of them joined from "
                f"{self.pieces} pieces, {self.own} of castoff's own")


def filters(command, paths, environment=None):
    """A filter from standard input to a file, for each: the processes."""
    started = []
    for path in paths:
        with open(path, "wb") as out:
            started.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=out,
                                            stderr=subprocess.PIPE,
                                            env={**os.environ, **(environment or {})}))
    return started


def run_filters(binary, material, command, form="json", is_one=False, environment=None, **rest):
    paths = [WORK / f"found-{stream}" for stream in (STREAMS[:1] if is_one else STREAMS)]
    commands = [[str(word).replace("PATH", str(path)) for word in command] for path in paths]
    readers = [filters(command, [path], environment)[0] for command, path in zip(commands, paths)]
    ends = [reader.stdin for reader in readers]
    settings = {"CASTOFF_LOG_FORMAT": form, "CASTOFF_LOG_LEVEL": "debug", **IDENTITY}
    castoff = Castoff(binary, material.command(), settings, ends[0], ends[-1])
    for end in ends:
        end.close()
    equal("castoff's exit code", castoff.code(120), 0)
    for reader in readers:
        said = reader.stderr.read().decode(errors="replace")
        equal(f"the code of {command[0]} ({said[-500:]})", reader.wait(60), 0)
    return verify(material, paths, form, **rest)


def verify(material, paths, form, cut_at_nul=False, check=None):
    found = Lines(form, check)
    for path in paths:
        found.add(path)
        os.unlink(path)
    found.compare(material, cut_at_nul)
    if not (found.split > 10 and found.pieces > 100 and found.own > 3):
        raise Wrong(f"too little to prove anything: {found.words()}")
    return found.words()


def need(program):
    if not shutil.which(program):
        raise Wrong(f"there is no {program}")


def large():
    """Made once, for all."""
    if not hasattr(large, "material"):
        large.material = Material(LINES)
    return large.material


def python(at):
    """Python's json understands every line, each below 16 KiB and with no name twice"""
    return run_filters(at.castoff, large(), PYTHON, check=check_names)


def one_pipe(at):
    """both streams and castoff's own lines in one pipe, as Python's json sees them"""
    return run_filters(at.castoff, large(), PYTHON, is_one=True)


def jq(at):
    """jq understands every line"""
    need("jq")
    return run_filters(at.castoff, large(), JQ)


def node(at):
    """Node's JSON.parse understands every line"""
    need("node")
    return run_filters(at.castoff, large(), NODE)


SYSLOG_NG = """@version: 3.38
options {{ log-msg-size(65536); stats-freq(0); }};
source read {{ stdin(flags(no-parse)); }};
parser understand {{ json-parser(prefix(".json.")); }};
destination understood {{ file("{path}" template(
  "$(format-json --key .json.* --rekey .json.* --shift-levels 2)\\n")); }};
destination refused {{ file("{path}.refused" template("$MESSAGE\\n")); }};
log {{ source(read); if {{ parser(understand); destination(understood); }}
  else {{ destination(refused); }}; }};
"""


def syslog_ng(at):
    """syslog-ng's json-parser, with castoff's pipes as its standard input; its strings end at NUL"""
    program = at.unpacked / "usr/sbin/syslog-ng"
    library = at.unpacked / "usr/lib/syslog-ng"
    modules = next(library.glob("3.*"), library)
    need(program)
    for stream in STREAMS:
        path = WORK / f"found-{stream}"
        Path(f"{path}.conf").write_text(SYSLOG_NG.format(path=path))
    command = (program, "-F", "--no-caps", "-f", "PATH.conf", f"--module-path={modules}",
               "-R", "PATH.persist", "-c", "PATH.ctl", "--pidfile", "PATH.pid")
    said = run_filters(at.castoff, large(), command, cut_at_nul=True,
                       environment={"LD_LIBRARY_PATH": str(library)})
    refused = [path.name for path in WORK.glob("found-*.refused")]
    equal("lines that syslog-ng refused", refused, [])
    return said


RSYSLOG = """
global(workDirectory="{work}" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")
module(load="imfile") module(load="imptcp") module(load="mmjsonparse")
main_queue(queue.workerThreads="1")
template(name="understood" type="list") {{ property(name="$!all-json-plain") constant(value="\\n") }}
template(name="refused" type="list") {{ property(name="rawmsg") constant(value="\\n") }}
ruleset(name="parse") {{
  action(type="mmjsonparse" cookie="" useRawMsg="on")
  if $parsesuccess == "OK" then {{ action(type="omfile" file="{work}/found" template="understood") }}
  else {{ action(type="omfile" file="{work}/refused" template="refused") }}
}}
input(type="imptcp" path="{work}/socket" ruleset="parse" maxFrameSize="200000")
input(type="imfile" file="{work}/stdout" tag="stdout" ruleset="parse")
"""


def rsyslog(at):
    """rsyslog's mmjsonparse, by imfile for stdout and a socket of imptcp for stderr; its strings end at NUL"""
    program = at.unpacked / "usr/sbin/rsyslogd"
    need(program)
    work = WORK / "rsyslog"
    work.mkdir()
    (work / "conf").write_text(RSYSLOG.format(work=work))
    material = large()
    log = open(work / "log", "wb")
    modules = next(at.unpacked.glob("usr/lib/*/rsyslog"))
    collector = subprocess.Popen([program, "-n", "-iNONE", "-f", work / "conf", "-M", modules],
                                 stdout=log, stderr=log)
    try:
        until("rsyslog listens", (work / "socket").exists)
        socket_end = socket.socket(socket.AF_UNIX)
        socket_end.connect(str(work / "socket"))
        with open(work / "stdout", "wb") as out:
            settings = {"CASTOFF_LOG_LEVEL": "debug", **IDENTITY}
            castoff = Castoff(at.castoff, material.command(), settings, out, socket_end)
        socket_end.close()
        equal("castoff's exit code", castoff.code(120), 0)
        # How many lines there are on stdout; those of the socket end with castoff's last.
        with open(work / "stdout", "rb") as file:
            wanted = sum(1 for _ in file)

        def has_all():
            with contextlib.suppress(FileNotFoundError):
                with open(work / "found", "rb") as file:
                    text = file.read()
                return text.count(b'"filename"') >= wanted and b'"castoff exits"' in text
            return False

        until("rsyslog has written all", has_all)
    finally:
        collector.send_signal(signal.SIGTERM)
        collector.wait(30)
    if (work / "refused").exists():
        raise Wrong(f"refused: {(work / 'refused').read_bytes()[:300]}")
    return verify(material, [work / "found"], "json", cut_at_nul=True)


def formats(at):
    """gcp, ecs and otel: what their readers ask for is on every line, for Python and for jq"""
    material = Material(LINES_OF_FORMATS)
    for form in ("gcp", "ecs", "otel"):
        for command in (PYTHON, JQ):
            said = run_filters(at.castoff, material, command, form, check=check_names)
    return f"each twice: {said}"


PROOFS = (python, one_pipe, jq, node, syslog_ng, rsyslog, formats)
