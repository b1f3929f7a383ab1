"""One variant: all servers behind one HAProxy, under load, while their replicas are replaced."""
import asyncio
from dataclasses import dataclass, field
import logging
import random
import signal
import time

from balancer import Balancer
from load import Counts, Load
from replicas import Replica
from servers import PORT

# How often the endpoint controller looks at the readiness of a replica.
LOOK = 0.1
# Replicas of one server that may be ending at the same time.
ENDING = 4
# By so many seconds the rig itself may be late before it says so.
PUNCTUAL = 0.5
STARTS_WITHIN = 20


@dataclass
class Result:
    """What happened to one server under one variant."""
    server: str
    keep_alive: Counts | None = None
    close: Counts | None = None
    stop_seconds: list[float] = field(default_factory=list)
    lags: list[float] = field(default_factory=list)
    proxy_failures: int = 0
    # What must not happen even where requests may be lost.
    faults: list[str] = field(default_factory=list)

    @property
    def failed(self):
        return self.keep_alive.failed + self.close.failed + self.proxy_failures


class Rollout:
    def __init__(self, variant, servers, options, directory):
        self.variant, self.servers, self.options = variant, servers, options
        self.directory = directory
        directory.mkdir()
        self.balancer = Balancer(directory, [server.name for server in servers])
        self.results = {server.name: Result(server.name) for server in servers}
        self.replicas = []
        self.random = random.Random(f"{options.seed} {variant.name}")
        self.log = logging.getLogger(variant.name)
        self.endpoint_controllers = set()
        # Where this machine kept the rig from doing its part in time, in words.
        self.delays = []

    async def run(self):
        clock = asyncio.create_task(self.watch_the_clock())
        try:
            await self.balancer.start()
            async with asyncio.TaskGroup() as group:
                first = [group.create_task(self.bring_up(server, f"{server.name}-first{i}", 0))
                         for server in self.servers for i in range(self.options.replicas)]
            loads = {
                (server.name, keeps_alive): Load(ports[server.name], keeps_alive, self.options.seed)
                for server in self.servers
                for keeps_alive, ports in ((True, self.balancer.ports),
                                           (False, self.balancer.tcp_ports))
            }
            for load in loads.values():
                await load.start()
            await asyncio.sleep(1)
            async with asyncio.TaskGroup() as group:
                for position, server in enumerate(self.servers):
                    serving = [task.result() for task in first
                               if task.result().server is server]
                    group.create_task(self.update(server, position, serving))
            await asyncio.sleep(1)
            proxy = await self.balancer.failures()
            for (name, keeps_alive), load in loads.items():
                counts = await load.stop()
                setattr(self.results[name], "keep_alive" if keeps_alive else "close", counts)
            for name, result in self.results.items():
                result.proxy_failures = sum(
                    sum(proxy[backend].values()) for backend in self.balancer.backends(name))
        finally:
            for task in (clock, *self.endpoint_controllers):
                task.cancel()
            for replica in self.replicas:
                if replica.process:
                    await replica.kill()
            if self.balancer.process:
                await self.balancer.stop()
        return list(self.results.values())

    async def bring_up(self, server, name, lag):
        """A new replica, started, ready, and in rotation when the controller has seen that."""
        replica = Replica(name, server, lag, self.directory)
        self.replicas.append(replica)
        await replica.start([*self.variant.wrapper, *server.command],
                            self.variant.variables_for(server))
        controller = asyncio.create_task(self.control_endpoint(replica))
        self.endpoint_controllers.add(controller)
        async with asyncio.timeout(STARTS_WITHIN + lag):
            waiting = asyncio.create_task(replica.in_rotation.wait())
            await asyncio.wait({waiting, controller}, return_when=asyncio.FIRST_COMPLETED)
            if not waiting.done():
                waiting.cancel()
                controller.result()
        return replica

    async def control_endpoint(self, replica):
        """Tells the load balancer what becomes of a replica, always `lag` seconds late."""
        while not await self.is_ready(replica):
            await asyncio.sleep(LOOK)
        await asyncio.sleep(replica.lag)
        await self.balancer.put_in(replica, PORT)
        self.log.info("%s in rotation", replica.name)
        replica.in_rotation.set()
        if self.variant.is_castoff:
            while await replica.is_ready():
                await asyncio.sleep(LOOK)
        else:
            await replica.told.wait()
        self.log.info("%s seen as not ready", replica.name)
        if replica.told_at is None:
            self.results[replica.server.name].faults.append(f"{replica.name} went by itself")
            return
        await asyncio.sleep(replica.lag)
        await self.balancer.take_out(replica)
        self.log.info("%s out of rotation", replica.name)
        after = time.monotonic() - replica.told_at
        if after > replica.lag + PUNCTUAL:
            self.note_delay(f"{replica.name} was to leave the rotation {replica.lag:g} s after "
                            f"its signal and left after {after:.1f} s")
        # A kubelet goes on asking to the end. That is no traffic of the program's.
        while self.variant.is_castoff and not replica.has_ended:
            await replica.is_ready()
            await asyncio.sleep(1)

    async def is_ready(self, replica):
        # castoff without checks is ready with its program, which may not listen yet: a Pod has a
        # startup probe for that, on the program itself.
        if self.variant.is_castoff and not await replica.is_ready():
            return False
        return await replica.serves()

    async def watch_the_clock(self):
        while True:
            before = time.monotonic()
            await asyncio.sleep(LOOK)
            stood = time.monotonic() - before - LOOK
            if stood > PUNCTUAL:
                self.note_delay(f"the rig stood still for {stood:.1f} s")

    def note_delay(self, words):
        self.log.info("rig: %s", words)
        self.delays.append(words)

    async def update(self, server, position, serving):
        """A rolling update with one replica more than wanted: a new one first, then the oldest
        goes. It does not wait for the old one's end before it goes on, as a Deployment does not.
        """
        slots = asyncio.Semaphore(ENDING)
        lags = self.options.lags
        stops = range(position, self.options.stops, len(self.servers))
        async with asyncio.TaskGroup() as group:
            for number, _ in enumerate(stops):
                # Each server begins elsewhere in the cycle, so that a short run has all of it.
                lag = lags[(number + position + self.options.seed) % len(lags)]
                serving.append(await self.bring_up(server, f"{server.name}-{number}", lag))
                await slots.acquire()
                oldest = serving.pop(0)
                # The first ones were put in without delay and leave late like all.
                oldest.lag = lag
                await asyncio.sleep(self.random.uniform(0, 0.2))
                ending = group.create_task(self.stop(oldest))
                ending.add_done_callback(lambda _: slots.release())

    async def stop(self, replica):
        name = self.variant.signal_for(replica.server)
        self.log.info("%s gets %s, lag %s s", replica.name, name, replica.lag)
        code = await replica.stop(signal.Signals[name])
        result = self.results[replica.server.name]
        result.stop_seconds.append(replica.stop_seconds)
        result.lags.append(replica.lag)
        self.log.info("%s ended with %s after %.2f s", replica.name, code, replica.stop_seconds)
        if self.variant.is_castoff and code == 128 + signal.SIGKILL:
            result.faults.append(f"{replica.name} had to be killed")
