"""Programs that serve HTTP: nginx, HAProxy, gunicorn and a JVM."""
import asyncio
import os
import shutil
import signal

from castoff import CHILDREN
from seeing import Wrong, fetch, until
from servers import PORT, PROGRAMS

CHECK = f"http://127.0.0.1:{PORT}/"
NGINX = ("nginx", "-p", ".", "-c", f"{PROGRAMS}/nginx.conf")


async def answers(replica, limit=2, path="/"):
    answer = await fetch(replica.address, PORT, path, limit)
    return answer is not None and answer[0] == 200


async def answers_through(replica, limit=2):
    """A request that HAProxy cannot answer by itself."""
    return await answers(replica, limit, "/through")


async def freeze_and_thaw(replica, say, live, request=answers):
    """Readiness goes and comes with the program; liveness only where it is checked."""
    child = replica.child_tree()[0]
    replica.freeze()
    off = await replica.until_status("/readyz", 503)
    if live != 200:
        await replica.until_status("/livez", live)
    if await request(replica, limit=0.3):
        raise Wrong("it answers while it is stopped")
    await replica.expect("stopped", live, 503, 200)
    replica.thaw()
    on = await replica.first_request(request)
    if live != 200:
        await replica.until_status("/livez", 200)
    if replica.child_tree()[0] != child:
        raise Wrong("the child is another")
    say(f"SIGSTOP: off after {off:.2f} s, live {live}; SIGCONT: on {on}")


async def nginx(castoff, say):
    """http:// for readiness and liveness"""
    server = castoff("nginx")
    await server.launch(NGINX, {"CASTOFF_READY_CHECK": CHECK, "CASTOFF_LIVE_CHECK": CHECK,
                                "CASTOFF_STARTUP_CHECK": CHECK})
    await server.held_back("startup-check")
    await server.open_gate()
    say(f"ready {await server.first_request(answers)}")
    await freeze_and_thaw(server, say, live=503)
    # A stopped process has no part in its own end before it goes on.
    server.freeze()
    say(f"stopped again: {await server.end(0)}")
    server.expect_changes("startup-check", [False, True])
    server.expect_changes("ready-check", [True, False, True])
    server.expect_changes("live-check", [False, True])


async def nginx_listens(castoff, say):
    """listen:, no connection is made"""
    server = castoff("nginx")
    config = server.directory.parent / f"{server.name}.conf"

    def listen_on(port):
        text = (CHILDREN / "nginx.conf").read_text()
        config.write_text(text.replace("@PORT@", str(port)))

    listen_on(PORT)
    await server.launch(("nginx", "-p", ".", "-c", str(config)),
                        {"CASTOFF_READY_CHECK": f"listen:{PORT}"})
    await server.held_back("ready-check")
    await server.open_gate()
    say(f"ready {await server.first_request(answers)}")
    for port, status in ((PORT + 1, 503), (PORT, 200)):
        listen_on(port)
        # castoff forwards it.
        os.kill(server.pid1, signal.SIGHUP)
        waited = await server.until_status("/readyz", status)
        verdict = "on" if status == 200 else "off"
        say(f"reloaded to listen on {port}: {verdict} after {waited:.2f} s")
    if not await answers(server):
        raise Wrong("ready again, and does not answer")
    # What nginx says of a connection that comes to nothing.
    if "while waiting for request" in server.log.read_text():
        raise Wrong("it was connected to")
    say(await server.end(0))
    server.expect_changes("ready-check", [False, True, False, True])


def swap(volume, generation, files):
    """What the kubelet's AtomicWriter does: all files change at once, by the rename of a link."""
    data = volume / f"..2026_11_21_10_00_00.{generation}"
    data.mkdir(parents=True)
    for name, text in files.items():
        (data / name).write_text(text)
    link, new = volume / "..data", volume / "..data_tmp"
    old = link.readlink() if link.is_symlink() else None
    new.symlink_to(data.name)
    new.rename(link)
    for name in files:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")
    if old:
        shutil.rmtree(volume / old)


class Clients:
    """A few that ask all the time, each by a connection of its own, and what they were told."""

    def __init__(self, server, count=4):
        self.server, self.answers, self.failures = server, 0, []
        self.tasks = [asyncio.create_task(self.ask()) for _ in range(count)]

    async def ask(self):
        while True:
            answer = await fetch(self.server.address, PORT, "/", 5)
            if answer and answer[0] == 200 and answer[1].startswith("generation "):
                self.answers += 1
            else:
                self.failures.append(answer)
            await asyncio.sleep(0.002)

    async def end(self):
        """Each ends after an answer or between two."""
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def nginx_reloads(castoff, say):
    """CASTOFF_WATCH on a ConfigMap, SIGHUP for each change, and no request fails"""
    server = castoff("nginx")
    volume = server.directory.parent / f"{server.name}.volume"

    def configure(generation):
        text = (CHILDREN / "nginx.conf").read_text().replace("@PORT@", str(PORT))
        swap(volume, generation,
             {"nginx.conf": text.replace("200 served", f'200 "generation {generation}"')})

    async def until_served(generation):
        async def is_served():
            return await fetch(server.address, PORT) == (200, f"generation {generation}")

        return await until(f"generation {generation} is served", is_served)

    configure(0)
    await server.launch(("nginx", "-p", ".", "-c", str(volume / "nginx.conf")),
                        {"CASTOFF_READY_CHECK": CHECK, "CASTOFF_WATCH": str(volume),
                         "CASTOFF_WATCH_ACTION": "signal:SIGHUP"})
    await server.held_back("ready-check")
    await server.open_gate()
    await server.first_request(answers)
    clients, took = Clients(server), []
    for generation in range(1, 6):
        configure(generation)
        took.append(await until_served(generation))
    say(f"5 changes, each served after {min(took):.2f} to {max(took):.2f} s")
    told = len(server.events("config_changed"))
    if told != 5:
        raise Wrong(f"{told} changes were told instead of 5")
    for generation in range(6, 16):
        configure(generation)
        await asyncio.sleep(0.02)
    last = await until_served(15)
    # Whatever follows a burst has followed by then.
    await asyncio.sleep(1.5)
    told = len(server.events("config_changed")) - told
    say(f"10 in a burst: {told} reloads, the last served after {last:.2f} s")
    await clients.end()
    if clients.failures or clients.answers < 100 or told > 3:
        raise Wrong(f"{len(clients.failures)} of {clients.answers} requests failed: "
                    f"{clients.failures[:3]}")
    server.expect_changes("ready-check", [False, True])
    say(f"{clients.answers} requests, none failed; {await server.end(0)}")


async def haproxy(castoff, say):
    """-Ws: sd_notify, and nginx behind it as CASTOFF_DEPENDS_ON"""
    backend, balancer = castoff("nginx"), castoff("haproxy")
    await backend.launch(NGINX, {"CASTOFF_READY_CHECK": CHECK}, gate=None)
    await backend.first_request(answers)
    config = balancer.directory.parent / f"{balancer.name}.cfg"
    config.write_text((CHILDREN / "haproxy.cfg").read_text().replace("@BACKEND@", backend.address))
    await balancer.launch(
        ("haproxy", "-Ws", "-f", str(config)),
        {"CASTOFF_NOTIFY": "on", "CASTOFF_READY_CHECK": CHECK, "CASTOFF_LIVE_CHECK": CHECK,
         "CASTOFF_DEPENDS_ON": f"http://{backend.address}:{PORT}/"})
    await balancer.held_back()
    await balancer.open_gate()
    say(f"ready {await balancer.first_request(answers_through)}")

    workers = {process.pid for process in balancer.child_tree()[1:]}
    os.kill(balancer.pid1, signal.SIGUSR2)

    async def has_other_workers():
        if await balancer.status("/readyz") != 200 or not await answers_through(balancer):
            raise Wrong("not ready, or no answer, while it reloads")
        now = {process.pid for process in balancer.child_tree()[1:]}
        return bool(now) and not now & workers

    say(f"SIGUSR2: ready all the {await until('other workers', has_other_workers):.2f} s that the "
        f"reload took")
    await freeze_and_thaw(balancer, say, 503, answers_through)

    await balancer.until_status("/livez", 200)
    await backend.cut()
    off = await balancer.until_status("/readyz", 503)
    parts = [await balancer.status(f"/readyz/{name}") for name in ("ready-check", "depends-on-1")]
    await backend.join()
    on = await balancer.first_request(answers_through)
    say(f"backend cut off: off after {off:.2f} s (readyz/ready-check, /depends-on-1: {parts}); "
        f"and back: on {on}")
    say(await balancer.end(0))
    await backend.end(0)
    balancer.expect_changes("depends-on-1", [True, False, True])
    # Its master announces a reload at its start as well.
    balancer.expect_said("reloading", "ready", "reloading", "reloaded", "stopping")


async def gunicorn(castoff, say):
    """http://, and sd_notify, whose READY=1 comes before the application is there"""
    server = castoff("gunicorn")
    await server.launch(
        ("gunicorn", "--bind", f"0.0.0.0:{PORT}", "--pythonpath", f"{CHILDREN},{PROGRAMS}",
         "late:wsgi"),
        {"CASTOFF_NOTIFY": "on", "CASTOFF_READY_CHECK": CHECK, "GATE": str(server.gate)},
        gate="inside")
    await server.held_back("ready-check")
    server.expect_said("ready")
    say("not ready after READY=1")
    await server.open_gate()
    say(f"ready {await server.first_request(answers)}")
    await freeze_and_thaw(server, say, live=200)
    say(await server.end(0))
    server.expect_changes("ready-check", [False, True, False, True])


async def jvm(castoff, say):
    """http:// at start-up, for readiness and for liveness, which waits for the start-up"""
    server = castoff("jvm")
    await server.launch(
        ("java", "-XX:TieredStopAtLevel=1", str(CHILDREN / "Server.java"), str(PORT)),
        {"CASTOFF_STARTUP_CHECK": CHECK, "CASTOFF_READY_CHECK": CHECK, "CASTOFF_LIVE_CHECK": CHECK},
        gate=None)
    await server.held_back("startup-check")
    say(f"ready {await server.first_request(answers)}")
    await freeze_and_thaw(server, say, live=503)
    # What a JVM makes of SIGTERM.
    say(await server.end(143))
    server.expect_changes("startup-check", [False, True])
    server.expect_changes("live-check", [False, True])
    server.expect_changes("ready-check", [True, False, True])


PROOFS = (nginx, nginx_listens, nginx_reloads, haproxy, gunicorn, jvm)
