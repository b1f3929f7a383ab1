"""Replicas: a supervisor and its server in namespaces of their own, PID 1 there, on one bridge.

All of it lives below the namespaces that `run` makes. Nothing has a name outside of them, and
nothing outlives them.
"""
import asyncio
import itertools
import os
import signal
import time

from servers import PORT

HEALTH_PORT = 9911
# One address for each replica that ever is, as Pods have them: none is used twice.
BRIDGE, OWN_ADDRESS = "replicas", "10.77.0.1/16"
serial = itertools.count(256)

# Held back until its network is there, like a container behind its sandbox.
GATE = """
read -r address && ip link set lo up && ip address add "$address" dev eth0 &&
ip link set eth0 up && exec "$@" </dev/null
"""


async def call(*command):
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT)
    output, _ = await process.communicate()
    if process.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {output.decode().strip()}")


async def make_bridge():
    await call("ip", "link", "set", "lo", "up")
    # With an address of its own: else it takes the lowest of its ports', which come and go, and a
    # replica's answers go to the one that it was.
    await call("ip", "link", "add", BRIDGE, "address", "02:00:00:00:00:01", "type", "bridge")
    await call("ip", "address", "add", OWN_ADDRESS, "dev", BRIDGE)
    await call("ip", "link", "set", BRIDGE, "up")


async def status_of(address, port, path):
    """The status of one GET, or None where nothing answers in a second, as a kubelet asks."""
    writer = None
    try:
        async with asyncio.timeout(1):
            reader, writer = await asyncio.open_connection(address, port)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: replica\r\nConnection: close\r\n\r\n".encode())
            line = await reader.readline()
            return int(line.split()[1])
    except (OSError, TimeoutError, IndexError, ValueError):
        return None
    finally:
        if writer:
            writer.close()


async def first_child(pid):
    """The process that `unshare --fork` has made, in its new namespaces."""
    async with asyncio.timeout(10):
        while True:
            with open(f"/proc/{pid}/task/{pid}/children") as children:
                if found := children.read().split():
                    return int(found[0])
            await asyncio.sleep(0.005)


class Replica:
    def __init__(self, name, server, lag, directory):
        number = next(serial)
        self.name = name
        self.server = server
        # How late the endpoint controller is for this one.
        self.lag = lag
        self.address = f"10.77.{number // 256}.{number % 256}"
        self.link = f"replica{number}"
        self.directory = directory / name
        self.log = self.directory / "log"
        # Set when it is told to stop: an EndpointSlice shows deletionTimestamp at that moment.
        self.told = asyncio.Event()
        self.in_rotation = asyncio.Event()
        self.process = self.pid1 = self.told_at = self.stop_seconds = None

    async def start(self, command, variables):
        """As a container runtime does: namespaces first, the network, then the program."""
        self.directory.mkdir(parents=True)
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                "unshare", "--net", "--pid", "--ipc", "--uts", "--fork", "--kill-child",
                "--mount-proc", "sh", "-c", GATE, "sh", *command,
                stdin=asyncio.subprocess.PIPE, stdout=log, stderr=log, cwd=self.directory,
                env={"PATH": os.environ["PATH"], "PYTHONDONTWRITEBYTECODE": "1", **variables})
        self.pid1 = await first_child(self.process.pid)
        await call("ip", "link", "add", self.link, "master", BRIDGE, "up", "type", "veth",
                   "peer", "name", "eth0", "netns", str(self.pid1))
        self.process.stdin.write(f"{self.address}/16\n".encode())
        self.process.stdin.close()

    async def serves(self):
        return await status_of(self.address, PORT, "/") == 200

    async def is_ready(self):
        """What /readyz says. No answer says nothing, as long as there is somebody to ask."""
        while True:
            status = await status_of(self.address, HEALTH_PORT, "/readyz")
            if status is not None or self.has_ended:
                return status == 200
            await asyncio.sleep(0.05)

    @property
    def has_ended(self):
        return self.process.returncode is not None

    async def stop(self, signal_number):
        """Sends the signal from outside, and returns the code when PID 1 has ended."""
        self.told_at = time.monotonic()
        os.kill(self.pid1, signal_number)
        self.told.set()
        code = await self.process.wait()
        self.stop_seconds = time.monotonic() - self.told_at
        return code

    async def kill(self):
        if not self.has_ended:
            os.kill(self.pid1, signal.SIGKILL)
            await self.process.wait()
