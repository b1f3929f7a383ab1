"""A container on gVisor's kernel, by an OCI bundle: castoff is its PID 1, with busybox beside it."""
import json
from pathlib import Path
import shutil
import signal
import subprocess
import time

WORK = Path("/run")
ROOT = WORK / "rootfs"
EXAMPLES = ("forker", "graceful", "print_env", "print_signals", "server", "stubborn")
# Seconds for anything that one waits for; this kernel is slow, and the machine may be busy.
LIMIT = 30


class Wrong(Exception):
    """What was seen is not what was to be proven."""


def make_root(castoff, examples):
    """The files of all containers: nobody can write there."""
    for directory in ("bin", "dev", "proc", "sys", "tmp"):
        (ROOT / directory).mkdir(parents=True)
    shutil.copy(castoff, ROOT / "castoff")
    shutil.copy("/bin/busybox", ROOT / "bin")
    for name in EXAMPLES:
        shutil.copy(Path(examples) / name, ROOT / "bin")
    applets = subprocess.run(["/bin/busybox", "--list"], capture_output=True, text=True, check=True)
    for applet in applets.stdout.split():
        if not (ROOT / "bin" / applet).exists():
            (ROOT / "bin" / applet).symlink_to("busybox")


def until(words, condition, limit=LIMIT):
    begun = time.monotonic()
    while not (answer := condition()):
        if time.monotonic() - begun > limit:
            raise Wrong(f"{words}: not within {limit} s")
        time.sleep(0.02)
    return answer


class Sandbox:
    def __init__(self, name):
        self.runsc = ["runsc", "--root", str(WORK / "state"), "--platform", "ptrace",
                      "--ignore-cgroups", "--network", "none"]
        self.name = name
        self.directory = WORK / name
        self.directory.mkdir()
        # gVisor writes to a pipe as one expects it; a file it would begin again and again.
        self.out, self.log = self.directory / "out", self.directory / "log"
        self.running = self.pumps = None

    def start(self, *arguments, settings=None, user=0, mounts=(), capabilities=(),
              cgroups=False):
        """Becomes `castoff ARGUMENTS...`. A mount is a path of this machine and one there."""
        variables = {"PATH": "/bin", **(settings or {})}
        config = {
            "ociVersion": "1.0.2",
            "process": {
                "user": {"uid": user, "gid": user}, "args": ["/castoff", *arguments],
                "env": [f"{key}={value}" for key, value in variables.items()], "cwd": "/",
                "noNewPrivileges": True,
                "capabilities": {kind: list(capabilities) for kind in
                                 ("bounding", "effective", "permitted")},
            },
            "root": {"path": str(ROOT), "readonly": True},
            "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"},
                       {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"},
                       *([{"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup"}]
                         if cgroups else []),
                       *({"destination": there, "type": "bind", "source": str(here),
                          "options": ["rbind", "rw"]} for here, there in mounts)],
            "linux": {"namespaces": [{"type": kind} for kind in
                                     ("pid", "network", "ipc", "uts", "mount")]},
        }
        (self.directory / "config.json").write_text(json.dumps(config))
        self.running = subprocess.Popen(
            [*self.runsc, "run", "--bundle", str(self.directory), self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.pumps = [subprocess.Popen(["cat"], stdin=pipe, stdout=path.open("wb"))
                      for pipe, path in ((self.running.stdout, self.out),
                                         (self.running.stderr, self.log))]
        return self

    def code(self):
        """Waits for its end."""
        try:
            code = self.running.wait(LIMIT)
            for pump in self.pumps:
                pump.wait(LIMIT)
        except subprocess.TimeoutExpired:
            raise Wrong(f"not at an end after {LIMIT} s") from None
        return code

    def lines(self):
        return self.out.read_text(errors="replace").splitlines()

    def until_line(self, text):
        until(f"the line {text}", lambda: any(text in line for line in self.lines()))

    def until_serving(self):
        until("serving", lambda: "serving" in self.phases())

    def events(self, name):
        # The last line may not be whole yet.
        lines = self.log.read_text(errors="replace").split("\n")[:-1]
        found = [json.loads(line) for line in lines if line.startswith('{"time":')]
        return [event for event in found if event.get("event") == name]

    def event(self, name):
        return until(f"the event {name}", lambda: self.events(name))[-1]

    def phases(self):
        return " ".join(event["to"] for event in self.events("phase_changed"))

    def kill(self, number):
        """As a runtime does it: from outside of the container."""
        subprocess.run([*self.runsc, "kill", self.name, signal.Signals(number).name], check=True,
                       stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)

    def inside(self, *command):
        """Runs a command there: its exit code and what it printed."""
        done = subprocess.run([*self.runsc, "exec", self.name, *command], text=True,
                              stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT)
        return done.returncode, done.stdout + done.stderr

    def remove(self):
        if self.running and self.running.poll() is None:
            subprocess.run([*self.runsc, "delete", "-force", self.name], capture_output=True,
                           stdin=subprocess.DEVNULL, timeout=LIMIT)
            self.running.kill()
            self.running.wait(LIMIT)
