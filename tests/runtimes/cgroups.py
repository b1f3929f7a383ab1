"""Cgroups for the suite, below its own: v1's per controller, or v2's one hierarchy.

Every number is that of the kernel's files; nothing of a cgroup that is not the suite's is changed.
"""
import contextlib
import errno
import os
from pathlib import Path
import time

PERIOD = 100_000


def _unescaped(path):
    return path.encode().decode("unicode_escape")


def _mounts():
    """(kind, controllers, root, mount point) of each cgroup mount."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        if kind in ("cgroup", "cgroup2"):
            fields = before.split(" ")
            yield kind, set(options.split(",")), _unescaped(fields[3]), _unescaped(fields[4])


def _own(controller):
    """The suite's own cgroup for a controller, as a directory; v1 comes first as for everybody."""
    lines = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    paths = {name: path for _, names, path in lines for name in names.split(",")}
    kind = "cgroup" if controller in paths else "cgroup2"
    path = paths[controller if kind == "cgroup" else ""]
    for mounted, controllers, root, at in _mounts():
        if mounted == kind and (kind == "cgroup2" or controller in controllers):
            inside = os.path.relpath(path, root)
            # A mount that was made outside of the namespace of this process.
            return kind, Path(at) if inside.startswith("..") else Path(at) / inside
    raise RuntimeError(f"no cgroup with the controller {controller} is mounted")


class Group:
    """One cgroup with limits on CPUs (a fraction) and memory (bytes); None is no limit."""

    def __init__(self, name, cpus=None, memory=None):
        self.directories = []
        try:
            self._make(name, cpus, memory)
        except OSError:
            self.remove()
            raise

    def _make(self, name, cpus, memory):
        for controller in ("cpu", "memory"):
            kind, own = _own(controller)
            directory = own / name
            if kind == "cgroup2":
                directory = self._with_controllers(own, name)
            if directory not in self.directories:
                directory.mkdir()
                self.directories.append(directory)
            if controller == "cpu" and cpus is not None:
                quota = round(cpus * PERIOD)
                if kind == "cgroup":
                    (directory / "cpu.cfs_period_us").write_text(str(PERIOD))
                    (directory / "cpu.cfs_quota_us").write_text(str(quota))
                else:
                    (directory / "cpu.max").write_text(f"{quota} {PERIOD}")
            if controller == "memory" and memory is not None:
                name_of = {"cgroup": "memory.limit_in_bytes", "cgroup2": "memory.max"}
                (directory / name_of[kind]).write_text(str(memory))

    @staticmethod
    def _with_controllers(own, name):
        """Where a cgroup of v2 can have limits: a cgroup with processes passes no controller on to
        those below, unless it is the root."""
        try:
            (own / "cgroup.subtree_control").write_text("+cpu +memory")
            return own / name
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return own.parent / name

    def join(self):
        """For the process that calls, between fork and exec."""
        for directory in self.directories:
            (directory / "cgroup.procs").write_text("0")

    def remove(self):
        for directory in self.directories:
            deadline = time.monotonic() + 5
            while directory.exists():
                with contextlib.suppress(OSError):
                    directory.rmdir()
                    break
                if time.monotonic() > deadline:
                    raise RuntimeError(f"{directory} cannot be removed")
                time.sleep(0.01)
