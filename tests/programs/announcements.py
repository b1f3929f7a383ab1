"""Programs that say themselves when they are ready: systemd-notify, and a line of Python."""
import asyncio
import os
from pathlib import Path

from castoff import CHILDREN, WORK, as_user
from seeing import Wrong

# The whole of sd_notify for a program that wants no library: sends argv[1] to $NOTIFY_SOCKET.
SEND = ("import os, socket, sys; a = os.environ['NOTIFY_SOCKET']; "
        "s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM); "
        "s.connect(a.replace('@', '\\0', 1)); s.send(sys.argv[1].encode())")
# Seconds; the script pings much more often.
WATCHDOG = 2
# Becomes what follows, on a root where nothing can be written.
READ_ONLY = ("sh", "-c", """
for at in /run /tmp /dev/shm /; do
  mount --bind "$at" "$at" && mount -o remount,bind,ro "$at" && cd "$PWD" || exit
done
exec "$@"
""", "sh")


async def systemd_notify(castoff, say):
    """--ready and WATCHDOG=1 from children of a script that is nobody's"""
    script = castoff("script")
    alive = WORK / f"{script.name}.alive"
    alive.touch()
    await script.launch(("sh", str(CHILDREN / "pings.sh"), str(alive)),
                        {"CASTOFF_NOTIFY": "on", "CASTOFF_WATCHDOG": f"{WATCHDOG}s"},
                        before=as_user("nobody"))
    await script.held_back()
    await script.open_gate()
    say(f"ready after {await script.until_status('/readyz', 200):.2f} s")
    await script.stays("/livez", 200, 1.5 * WATCHDOG)
    say(f"live for {1.5 * WATCHDOG:g} s with pings")
    for words, silence, voice in (("SIGSTOP", script.freeze, script.thaw),
                                  ("no more pings", alive.unlink, alive.touch)):
        silence()
        off = await script.until_status("/livez", 503)
        # Of a late ping readiness knows nothing.
        await script.expect(words, 503, 200, 200)
        reason = script.events("check_changed")[-1].get("reason")
        voice()
        on = await script.until_status("/livez", 200)
        say(f"{words}: not live after {off:.2f} s ({reason}); and again: live after {on:.2f} s")
    if "did not" in script.log.read_text():
        raise Wrong("systemd-notify failed")
    say(await script.end(143))


async def python(castoff, say):
    """READY=1 to an abstract socket on a read-only root; a stranger's is not believed"""
    program = castoff("program")
    await program.launch(("python3", "-c", f"{SEND}; import signal; signal.pause()", "READY=1"),
                         {"CASTOFF_NOTIFY": "on"}, before=READ_ONLY)
    await program.held_back()
    child = program.child_tree()[0]
    variables = Path(f"/proc/{child.pid}/environ").read_bytes().split(b"\0")
    address = next((word.decode().partition("=")[2] for word in variables
                    if word.startswith(b"NOTIFY_SOCKET=")), "")
    if not address.startswith("@"):
        raise Wrong(f"NOTIFY_SOCKET is {address!r}")
    # Of another container of the Pod, that is in the same network namespace only.
    stranger = await asyncio.create_subprocess_exec(
        "nsenter", f"--net=/proc/{program.pid1}/ns/net", "python3", "-c", SEND, "READY=1",
        env={**os.environ, "NOTIFY_SOCKET": address})
    if await stranger.wait() != 0:
        raise Wrong("the stranger could not send at all")
    await program.expect("a stranger's READY=1", 200, 503, 503)
    say("a stranger's READY=1 was sent: not ready")
    await program.open_gate()
    say(f"its own: ready after {await program.until_status('/readyz', 200):.2f} s")
    say(await program.end(143))


PROOFS = (systemd_notify, python)
