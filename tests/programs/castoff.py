"""castoff as PID 1 in namespaces of its own with one program below it, as its platform sees it.

The program may be held back by a gate, a FIFO that its shell reads before it becomes the program:
so the time before it can serve lasts as long as the test wants it to.
"""
import asyncio
import contextlib
import errno
import itertools
import json
import os
from pathlib import Path
import pwd
import signal
import time

from replicas import HEALTH_PORT, Replica, call
from seeing import LOOK, Wrong, fetch, processes, until

WORK = Path("/run")
CHILDREN = Path(__file__).resolve().parent / "children"
# A change is seen soon: off after two failures, on after one success. The timeout is for machines
# that are busy.
CHECKS = {"CASTOFF_CHECK_PERIOD": "200ms", "CASTOFF_CHECK_TIMEOUT": "1s",
          "CASTOFF_CHECK_FAILURES": "2"}


def as_user(name):
    """What castoff is started by when its image has that user."""
    group = pwd.getpwnam(name).pw_gid
    return "setpriv", f"--reuid={name}", f"--regid={group}", "--init-groups"


class Castoff(Replica):
    def __init__(self, binary, name):
        super().__init__(name, None, 0, WORK)
        self.binary = binary
        self.gate = WORK / f"{name}.gate"

    async def launch(self, command, settings=None, gate="before", before=()):
        """Starts castoff with these settings. `before` is what becomes castoff, at first. The gate
        stands `before` the program or `inside` it, which has to know it, or there is none."""
        if gate:
            os.mkfifo(self.gate)
            os.chmod(self.gate, 0o666)
        if gate == "before":
            command = ("sh", "-c", 'read -r _ <"$0" && exec "$@"', str(self.gate), *command)
        await self.start((*before, self.binary, "--", *command), {**CHECKS, **(settings or {})})

        async def runs():
            return self.has_ended or bool(self.log.read_bytes())

        # Its network is there by then: a packet that comes before is repeated after a second.
        await until(f"{self.name} says something", runs)

    async def open_gate(self):
        async def opened():
            try:
                writer = os.open(self.gate, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:
                # Nobody is there to read.
                if error.errno == errno.ENXIO:
                    return False
                raise
            os.write(writer, b"\n")
            os.close(writer)
            return True

        await until(f"{self.name} stands at its gate", opened)

    async def ask(self, path):
        """What castoff's endpoint answers; None only when it has ended."""
        begun = time.monotonic()
        while time.monotonic() - begun < 10 and not self.has_ended:
            if answer := await fetch(self.address, HEALTH_PORT, path):
                return answer
            await asyncio.sleep(LOOK)
        return None

    async def status(self, path):
        answer = await self.ask(path)
        return answer and answer[0]

    async def statuses(self):
        return [await self.status(path) for path in ("/livez", "/readyz", "/startupz")]

    async def expect(self, words, live, ready, started):
        seen, wanted = await self.statuses(), [live, ready, started]
        if seen != wanted:
            raise Wrong(f"{words}: livez, readyz, startupz are {seen} instead of {wanted}")

    async def until_status(self, path, status, limit=15):
        async def is_seen():
            seen = await self.status(path)
            if seen is None and self.has_ended:
                raise Wrong(f"{self.name} has ended with {self.process.returncode}")
            return seen == status

        return await until(f"{self.name}: {path} is {status}", is_seen, limit)

    async def stays(self, path, status, seconds):
        """That it is so all the time, for as long as something would take to change it."""
        begun = time.monotonic()
        while time.monotonic() - begun < seconds:
            if (seen := await self.status(path)) != status:
                raise Wrong(f"{path} is {seen} after {time.monotonic() - begun:.2f} s")
            await asyncio.sleep(LOOK)

    async def runs_of(self, check):
        """How often a check has come to a result."""
        answer = await self.ask("/metrics")
        lines = [line for line in (answer[1] if answer else "").splitlines()
                 if line.startswith("castoff_check_duration_seconds_count{")
                 and f'check="{check}"' in line]
        return sum(float(line.split()[-1]) for line in lines)

    async def held_back(self, *checks):
        """Neither ready nor started, though each of the checks has been made more than once."""
        await self.until_status("/livez", 200)
        for check in checks:
            async def has_run(check=check):
                return await self.runs_of(check) >= 2

            await until(f"{self.name}: {check} has run twice", has_run)
        await self.expect("before it can serve", 200, 503, 503)

    async def first_request(self, request):
        """Awaits readiness and asks the program at that moment: how long each took, in words."""
        waited = await self.until_status("/readyz", 200)
        begun = time.monotonic()
        if not await request(self):
            raise Wrong(f"the first request after {waited:.2f} s of waiting for readiness failed")
        return f"after {waited:.2f} s, first request {1000 * (time.monotonic() - begun):.0f} ms"

    def events(self, name):
        lines = self.log.read_text(errors="replace").splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"time":')]
        return [event for event in found if event["event"] == name]

    def expect_changes(self, check, wanted):
        """The verdicts of a check in the order of the log, whatever the reasons of each: nothing
        came and went in between."""
        told = [event["ok"] for event in self.events("check_changed") if event["check"] == check]
        seen = [verdict for verdict, _ in itertools.groupby(told)]
        if seen != wanted:
            raise Wrong(f"check_changed of {check}: {seen} instead of {wanted}")

    def expect_said(self, *wanted):
        """What the program has told by sd_notify, in this order."""
        seen = [event["state"] for event in self.events("notified")]
        if seen != list(wanted):
            raise Wrong(f"it has told {seen} instead of {list(wanted)}")

    def family(self):
        """castoff's descendants: those of the child, the child first, and all others."""
        below = {}
        for process in processes():
            below.setdefault(process.parent, []).append(process)

        def tree(root):
            return [root, *(found for child in below.get(root.pid, ()) for found in tree(child))]

        inner_pid = self.events("child_started")[-1]["child_pid"]
        own, others = [], []
        for root in below.get(self.pid1, ()):
            (own if root.inner_pid == inner_pid else others).extend(tree(root))
        return own, others

    def child_tree(self):
        return self.family()[0]

    def tell_tree(self, number):
        """Signals the child and all below it, those included that come up meanwhile."""
        told = set()
        while new := [process for process in self.child_tree() if process not in told]:
            for process in new:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, number)
            told.update(new)

    def freeze(self):
        """Stops the child and all below it, and nothing else: neither castoff nor its checks."""
        self.tell_tree(signal.SIGSTOP)

    def thaw(self):
        self.tell_tree(signal.SIGCONT)

    async def cut(self):
        """Takes its network away, and nothing else."""
        await call("ip", "link", "set", self.link, "down")

    async def join(self):
        await call("ip", "link", "set", self.link, "up")

    async def end(self, code, within=5):
        """The stop as a platform does it: the words for it when it ended as it should."""
        async with asyncio.timeout(within + 5):
            seen = await self.stop(signal.SIGTERM)
        reasons = [event["reason"] for event in self.events("child_exited")[-1:]]
        if seen != code or reasons != ["stopped"] or self.stop_seconds > within:
            raise Wrong(f"SIGTERM: ended with {seen} instead of {code}, child {reasons}, after "
                        f"{self.stop_seconds:.2f} s")
        return f"SIGTERM -> {seen} in {self.stop_seconds:.2f} s"
