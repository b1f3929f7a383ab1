"""castoff as PID 1 of a namespace of its own, and what the kernel says of it."""
import contextlib
import http.client
import json
import os
from pathlib import Path
import signal
import subprocess
import time

WORK = Path("/run")
HERE = Path(__file__).resolve().parent
TICK = os.sysconf("SC_CLK_TCK")
ISOLATE = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
# Of any wait, on a machine that is busy.
PATIENCE = 60


class Wrong(Exception):
    """What was seen instead."""


def until(words, condition, limit=PATIENCE):
    """Waits until it is true of what `condition` gives, and returns that."""
    begun = time.monotonic()
    while not (seen := condition()):
        if time.monotonic() - begun > limit:
            raise Wrong(f"not within {limit} s: {words}")
        time.sleep(0.01)
    return seen


def children(pid):
    """Of all its threads."""
    try:
        lists = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children")]
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [int(word) for words in lists for word in words.split()]


def status(pid, word):
    """A figure of /proc/PID/status, in its unit; None when it has ended."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    found = [line for line in text.splitlines() if line.startswith(word + ":")]
    return int(found[0].split()[1]) if found else None


class Castoff:
    """Runs until `end`; its log is in a file unless stderr is somebody else's."""
    running = []

    def __init__(self, binary, command, settings=None, stdout=subprocess.DEVNULL, stderr=None):
        self.log = WORK / f"log-{time.monotonic_ns()}"
        environment = {"PATH": os.environ["PATH"], "CASTOFF_CHILD_LOGS": "json",
                       "CASTOFF_SIZING": "off", **(settings or {})}
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*ISOLATE, binary, "--", *map(str, command)], env=environment,
                stdin=subprocess.DEVNULL, stdout=stdout, stderr=log if stderr is None else stderr)
        # One that is over at once is seen as ended, and has no pid.
        self.pid = until("castoff runs", lambda: children(self.process.pid)
                         or self.process.poll() is not None and [None])[0]
        Castoff.running.append(self)

    def child(self):
        return until("the child runs", lambda: children(self.pid))[0]

    def memory(self):
        """KiB at present."""
        return status(self.pid, "VmRSS")

    def ticks(self):
        """Of the CPU, in user mode and in the kernel."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def get(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", 9911, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        except OSError as error:
            return None, str(error)
        finally:
            connection.close()

    def until_ready(self):
        until("/readyz is 200", lambda: self.get("/readyz")[0] == 200
              or self.process.poll() is not None)
        equal("castoff's code before it has ended", self.process.poll(), None)

    def metric(self, name):
        lines = (self.get("/metrics")[1] or "").splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def signal(self, number):
        os.kill(self.pid, number)

    def code(self, limit=PATIENCE):
        try:
            return self.process.wait(limit)
        except subprocess.TimeoutExpired:
            raise Wrong(f"castoff has not ended after {limit} s") from None

    def stop(self):
        """SIGTERM: the code, and how long it took."""
        begun = time.monotonic()
        self.signal(signal.SIGTERM)
        return self.code(), time.monotonic() - begun

    def events(self, name):
        found = [json.loads(line) for line in self.log.read_bytes().splitlines()]
        return [event for event in found if event.get("event") == name]

    def end(self):
        self.process.kill()
        self.process.wait()
        # Whose parent ends becomes a child of this process. The next one wants its port.
        if self.pid:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self.pid, 0)


def without(command, stdout, stderr):
    """The same program without castoff: its process."""
    return subprocess.Popen(list(map(str, command)), env={"PATH": os.environ["PATH"]},
                            stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr)


def equal(words, seen, wanted):
    if seen != wanted:
        raise Wrong(f"{words}: {str(seen)[:300]} instead of {str(wanted)[:300]}")
