"""PostgreSQL and Redis: checks that speak to them, and programs that need them."""
import asyncio
import os
from pathlib import Path
import shutil
import signal
import subprocess

from castoff import CHILDREN, WORK, as_user
from seeing import Wrong, until
from servers import PROGRAMS
from web import answers

REDIS = ("redis-server", "--supervised", "systemd", "--bind", "0.0.0.0", "--protected-mode", "no",
         "--save", "")
REDIS_PORT = 6379
PING = "exec:redis-cli -e ping"
ROWS = 400_000


async def output_of(*command, limit=10):
    """What a client of Debian's says, or None where it fails or does not come to an end."""
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT)
    try:
        async with asyncio.timeout(limit):
            output, _ = await process.communicate()
            return output.decode().strip() if process.returncode == 0 else None
    except TimeoutError:
        process.kill()
        await process.wait()
        return None


async def query(server, text, limit=10):
    return await output_of("psql", "-h", server.address, "-U", "postgres", "-AtXqc", text,
                           limit=limit)


async def counts(server, limit=2):
    return await query(server, "SELECT count(*) FROM things", limit) == str(ROWS)


async def selects(server, limit=2):
    return await query(server, "SELECT 1", limit) == "1"


async def pings(server, limit=2):
    try:
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(server.address, REDIS_PORT)
            writer.write(b"PING\r\n")
            answer = await reader.readline()
            writer.close()
            return answer == b"+PONG\r\n"
    except (OSError, TimeoutError):
        return False


async def freeze_and_thaw(server, say, request):
    """Readiness goes and comes. No check of a program that hangs is made twice at a time."""
    most = 0

    async def is_off():
        nonlocal most
        most = max(most, len([found for found in server.family()[1] if found.command != "sh"]))
        return await server.status("/readyz") == 503

    server.freeze()
    off = await until("not ready while stopped", is_off)
    if await request(server, limit=0.3):
        raise Wrong("it answers while it is stopped")
    await server.expect("stopped", 200, 503, 200)
    reason = server.events("check_changed")[-1]["reason"]
    if not reason.startswith("has not ended within"):
        raise Wrong(f"not ready because {reason}")
    server.thaw()
    on = await server.first_request(request)
    if most > 1:
        raise Wrong(f"{most} runs of one check at a time")
    say(f"SIGSTOP: off after {off:.2f} s, live 200; SIGCONT: on {on}")


async def make_cluster(place):
    place.mkdir()
    shutil.chown(place, "postgres", "postgres")
    runtime = WORK / "postgresql"
    runtime.mkdir(exist_ok=True)
    shutil.chown(runtime, "postgres", "postgres")
    made = await output_of(*as_user("postgres"), "initdb", "-D", str(place), "-A", "trust",
                           "--no-sync", limit=30)
    if made is None:
        raise Wrong("initdb failed")
    with (place / "pg_hba.conf").open("a") as rules:
        rules.write("host all all 10.77.0.0/16 trust\n")


def title(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


async def postgresql(castoff, say):
    """exec:pg_isready as user postgres, beside tcp:// and unix://, which are wrong in a recovery"""
    place = WORK / "cluster"
    await make_cluster(place)
    command = ("postgres", "-D", str(place), "-c", "listen_addresses=*",
               "-c", "unix_socket_directories=/run/postgresql")
    # It waits for its clients at a SIGTERM.
    stop = {"CASTOFF_STOP_SIGNAL": "SIGINT"}
    settings = {**stop, "CASTOFF_CONFIG": str(CHILDREN / "postgresql.toml")}
    first = castoff("first")
    await first.launch(command, settings, before=as_user("postgres"))
    await first.held_back("queries", "port", "socket")
    await first.open_gate()
    say(f"ready {await first.first_request(selects)}")
    await freeze_and_thaw(first, say, selects)

    filled = await query(first, f"CREATE TABLE things AS SELECT generate_series(1, {ROWS}) AS id; "
                                "CREATE INDEX ON things (id); SELECT 'filled'", 60)
    if filled != "filled":
        raise Wrong(f"the table: {filled}")
    await first.kill()

    recovered = castoff("recovered")
    await recovered.launch(command, settings, before=as_user("postgres"))
    await recovered.held_back("queries", "port", "socket")
    recovery = []

    async def is_recovering():
        recovery[:] = [found.pid for found in recovered.child_tree()[1:]
                       if title(found.pid).startswith("postgres: startup")]
        return bool(recovery)

    await recovered.open_gate()
    await until("a process that recovers", is_recovering)
    # So that the recovery lasts until all has been seen.
    os.kill(recovery[0], signal.SIGSTOP)
    for name in ("port", "socket"):
        await recovered.until_status(f"/readyz/{name}", 200)
    before = await recovered.runs_of("queries")

    async def has_run():
        return await recovered.runs_of("queries") >= before + 2

    await until("queries has run", has_run)
    await recovered.expect("recovering", 200, 503, 503)
    if await recovered.status("/readyz/queries") != 503 or await selects(recovered):
        raise Wrong("it takes queries during its recovery")
    os.kill(recovery[0], signal.SIGCONT)
    say("after a crash, recovering: port and socket pass, queries does not, off; "
        f"recovered: on {await recovered.first_request(counts)}")
    say(await recovered.end(0))
    for check in ("port", "socket", "queries"):
        recovered.expect_changes(check, [False, True])

    announced = castoff("announced")
    await announced.launch(command, {**stop, "CASTOFF_NOTIFY": "on"}, before=as_user("postgres"))
    await announced.held_back()
    await announced.open_gate()
    say(f"by its own READY=1 alone: ready {await announced.first_request(counts)}")
    await announced.end(0)
    announced.expect_said("ready", "stopping")


async def redis(castoff, say):
    """supervised systemd: sd_notify, and exec:redis-cli ping"""
    server = castoff("redis")
    await server.launch(REDIS, {"CASTOFF_NOTIFY": "on", "CASTOFF_READY_CHECK": PING})
    await server.held_back()
    await server.open_gate()
    say(f"ready {await server.first_request(pings)}")
    await freeze_and_thaw(server, say, pings)
    say(await server.end(0))
    server.expect_changes("ready-check", [True, False, True])
    server.expect_said("ready", "stopping")


def named(**addresses):
    """Gives names to addresses for everything that is started from now on."""
    hosts = WORK / "hosts"
    is_new = not hosts.exists()
    # The first address of localhost is one where the programs do not listen, as in any container.
    hosts.write_text("::1 localhost\n127.0.0.1 localhost\n" + "".join(
        f"{address} {name}\n" for name, address in addresses.items()))
    if is_new:
        subprocess.run(["mount", "--bind", hosts, "/etc/hosts"], check=True)


async def chain(castoff, say):
    """CASTOFF_WAIT_FOR a Redis and the castoff above it, by name; then CASTOFF_DEPENDS_ON it"""
    database, program, impatient = castoff("redis"), castoff("gunicorn"), castoff("stopped")
    named(database=database.address)
    await database.launch(REDIS, {"CASTOFF_NOTIFY": "on", "CASTOFF_READY_CHECK": PING})
    await database.held_back()
    waiting = {"CASTOFF_WAIT_FOR": f"tcp://database:{REDIS_PORT},http://database:9911/readyz",
               "CASTOFF_DEPENDS_ON": f"exec:redis-cli -e -h database -p {REDIS_PORT} ping",
               "CASTOFF_READY_CHECK": "http://localhost:8080/"}
    command = ("gunicorn", "--bind", "0.0.0.0:8080", "--pythonpath", str(PROGRAMS),
               "application:wsgi")
    for replica in (program, impatient):
        await replica.launch(command, waiting, gate=None)
        await replica.until_status("/livez", 200)
    for replica in (program, impatient):
        await replica.held_back("wait-for-1", "wait-for-2")
        if replica.events("child_started"):
            raise Wrong(f"{replica.name} has started its child before its time")
    async with asyncio.timeout(5):
        code = await impatient.stop(signal.SIGTERM)
    if code != 143 or impatient.events("child_started") or impatient.stop_seconds > 1:
        raise Wrong(f"one that waits ended with {code} after {impatient.stop_seconds:.2f} s")
    say(f"two wait, one is stopped: {code} in {impatient.stop_seconds:.2f} s")

    await database.open_gate()
    await database.first_request(pings)
    say(f"the other ready {await program.first_request(answers)} after its Redis")
    serving = [event["time"] for event in database.events("phase_changed")
               if event["to"] == "serving"]
    started = [event["time"] for event in program.events("child_started")]
    if not serving[0] < started[0]:
        raise Wrong(f"started at {started}, Redis serving at {serving}")

    child = program.child_tree()[0]
    database.freeze()
    off = await program.until_status("/readyz", 503)
    await program.expect("its Redis stopped", 200, 503, 200)
    database.thaw()
    on = await program.first_request(answers)
    say(f"Redis stopped by SIGSTOP: off after {off:.2f} s, live 200; by SIGCONT: on {on}")
    await database.end(0)
    off = await program.until_status("/readyz", 503)
    if program.child_tree()[0] != child or not await answers(program):
        raise Wrong("the program did not outlive its Redis")
    say(f"Redis ended: off after {off:.2f} s, the program serves on")
    say(await program.end(0))


PROOFS = (postgresql, redis, chain)
