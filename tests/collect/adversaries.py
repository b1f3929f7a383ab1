"""Programs and readers that want to see castoff grow, hang, or end."""
import os
import signal
import subprocess
import threading
import time

from castoff import HERE, TICK, WORK, Castoff, Wrong, children, equal, status, until, without
from collectors import Lines

FLOOD = int(os.environ.get("FLOOD_BYTES", 2_000_000_000))
# What castoff may have in KiB at its height, and by how much it may grow.
MEMORY_MAX = 24 * 1024
GROWTH_MAX = 2 * 1024


def child(*words):
    return ("python3", "-S", HERE / "children.py", *words)


def read_all(fd):
    """All that comes, in a thread of its own: what to call for it."""
    found = bytearray()

    def read():
        while more := os.read(fd, 1 << 20):
            found.extend(more)
        os.close(fd)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()

    def all_of_it():
        thread.join(60)
        if thread.is_alive():
            raise Wrong("the pipe is still open")
        return bytes(found)

    return all_of_it


def joined(data):
    """The texts of standard output in wrapped lines."""
    path = WORK / "joined"
    path.write_bytes(data)
    found = Lines("json")
    found.add(path)
    return [text for text, _ in found.found["stdout"]]


def flood(at):
    """a program that writes gigabytes: castoff's memory does not grow, and nothing is lost"""
    line = "f" * 199
    reader = subprocess.Popen(["wc", "-lc"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    begun = time.monotonic()
    castoff = Castoff(at.castoff, ("sh", "-c", f"yes {line} | head -c {FLOOD}"), stdout=reader.stdin)
    reader.stdin.close()
    castoff.until_ready()
    heights = []
    while castoff.process.poll() is None:
        if height := status(castoff.pid, "VmHWM"):
            heights.append(height)
        time.sleep(0.1)
    seconds = time.monotonic() - begun
    equal("castoff's exit code", castoff.code(), 0)
    lines, size = map(int, reader.stdout.read().split())
    equal("lines", lines, FLOOD // 200)
    if len(heights) < 10 or size < FLOOD:
        raise Wrong(f"nothing was measured: {len(heights)} times, {size} bytes")
    if heights[-1] > MEMORY_MAX or heights[-1] - heights[2] > GROWTH_MAX:
        raise Wrong(f"VmHWM went from {heights[2]} to {heights[-1]} KiB")
    return (f"{FLOOD} bytes in, {size} out, {FLOOD / seconds / 1e6:.0f} MB/s; VmHWM {heights[2]} KiB "
            f"at first and {heights[-1]} KiB at last")


def stop_of(at, stalled):
    """A program that ignores SIGTERM and writes as much as it can, with that standard output not
    read: when it was killed and when castoff ended, after the signal; and facts of the stall."""
    settings = {"CASTOFF_GRACE_PERIOD": "3s", "CASTOFF_KILL_RESERVE": "1s",
                "CASTOFF_DRAIN_DELAY": "0s"}
    end, other = os.pipe()
    drain = None if stalled else subprocess.Popen(["cat"], stdin=end, stdout=subprocess.DEVNULL)
    castoff = Castoff(at.castoff, ("sh", "-c", "trap '' TERM; exec yes a line"), settings, other)
    os.close(other)
    castoff.until_ready()
    facts = []
    if stalled:
        blocked = castoff.child()
        until("the program waits for its reader",
              lambda: "pipe" in open(f"/proc/{blocked}/wchan").read())
        memory, ticks = castoff.memory(), castoff.ticks()
        time.sleep(2)
        spent, growth = castoff.ticks() - ticks, castoff.memory() - memory
        if spent > 2 or growth > 256:
            raise Wrong(f"stalled for 2 s: {spent} ticks of {1000 / TICK:g} ms, {growth} KiB more")
        for path in ("/livez", "/readyz", "/metrics"):
            equal(path, castoff.get(path)[0], 200)
        facts.append(f"stalled for 2 s: {spent * 1000 / TICK:g} ms of CPU, {growth} KiB more, "
                     "endpoints answered")
    code, seconds = castoff.stop()
    if drain:
        drain.wait(10)
    os.close(end)
    equal("castoff's exit code", code, 137)
    exited, received = castoff.events("child_exited")[0], castoff.events("signal_received")[0]
    equal("the reason", exited["reason"], "killed_at_deadline")

    def moment(event):
        return float(event["time"][-10:-1]) + 60 * int(event["time"][14:16])

    return (moment(exited) - moment(received)) % 3600, seconds, facts


def stalled(at):
    """a reader that has stopped for good: no CPU, no memory, endpoints, and the deadline kept"""
    killed, ended, _ = stop_of(at, stalled=False)
    stalled_killed, stalled_ended, facts = stop_of(at, stalled=True)
    if stalled_killed > killed + 0.5 or stalled_ended > 3.5:
        raise Wrong(f"killed after {stalled_killed:.3f} s and not {killed:.3f} s, ended after "
                    f"{stalled_ended:.3f} s of 3 s")
    return (f"{facts[0]}; killed {stalled_killed:.3f} s and ended {stalled_ended:.3f} s after SIGTERM, "
            f"with a reader {killed:.3f} s and {ended:.3f} s")


def both_stalled(at):
    """neither stream is read, castoff's own lines included: it stops in time all the same"""
    pipes = [os.pipe(), os.pipe()]
    settings = {"CASTOFF_GRACE_PERIOD": "3s", "CASTOFF_KILL_RESERVE": "1s",
                "CASTOFF_DRAIN_DELAY": "0s", "CASTOFF_LOG_LEVEL": "debug"}
    castoff = Castoff(at.castoff, ("sh", "-c", "yes out & yes err >&2"), settings,
                      pipes[0][1], pipes[1][1])
    for _, other in pipes:
        os.close(other)
    castoff.until_ready()
    child = castoff.child()
    until("both programs wait", lambda: len(children(child)) == 2 and all(
        "pipe" in open(f"/proc/{pid}/wchan").read() for pid in children(child)))
    descriptors, ticks = castoff.descriptors(), castoff.ticks()
    for _ in range(3000):
        castoff.signal(signal.SIGURG)
        time.sleep(0.0002)
    equal("/readyz", castoff.get("/readyz")[0], 200)
    equal("/livez", castoff.get("/livez")[0], 200)
    dropped = castoff.metric("castoff_log_dropped_total")
    height = status(castoff.pid, "VmHWM")
    ticks = castoff.ticks()
    time.sleep(1)
    spent = castoff.ticks() - ticks
    code, seconds = castoff.stop()
    for end, _ in pipes:
        os.close(end)
    if dropped < 1000 or height > MEMORY_MAX or spent > 2 or seconds > 3.5:
        raise Wrong(f"{dropped:g} lines dropped, {height} KiB, {spent} ticks, ended after {seconds:.2f} s")
    equal("castoff's exit code", code, 143)
    return (f"{dropped:g} of castoff's own lines dropped and counted, VmHWM {height} KiB, "
            f"{spent * 1000 / TICK:g} ms of CPU in 1 s, ended {seconds:.2f} s after SIGTERM")


def with_readers(start, killed):
    """Starts something with a reader for each stream and kills those of `killed`: the reader that
    is left, or None, and what was started."""
    readers, seen = [], [WORK / "read-stdout", WORK / "read-stderr"]
    for path in seen:
        with open(path, "wb") as file:
            readers.append(subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=file))
    started = start(readers[0].stdin, readers[1].stdin)
    for reader in readers:
        reader.stdin.close()
    until("both have read something", lambda: all(b" is read" in path.read_bytes() for path in seen))
    for number in killed:
        readers[number].kill()
        readers[number].wait()
    return started


def killed_readers(at):
    """kill -9 of a reader: the program meets what it would meet without castoff"""
    said = []
    for on_broken_pipe in ("ends", "exit"):
        for words, killed in (("stdout", [0]), ("stderr", [1]), ("both", [0, 1])):
            command = child("talk", on_broken_pipe)
            alone = with_readers(lambda out, err: without(command, out, err), killed).wait(20)
            castoff = with_readers(
                lambda out, err: Castoff(at.castoff, command, None, out, err), killed)
            seen = castoff.code(20)
            alone = 128 - alone if alone < 0 else alone
            equal(f"{words}, SIGPIPE {on_broken_pipe}: the code", seen, alone)
            said.append(f"{words} {seen}")
    castoff = with_readers(
        lambda out, err: Castoff(at.castoff, child("talk", "stays"), None, out, err), [0])
    until("the program says that stdout is broken",
          lambda: b"fds {1} are" in (WORK / "read-stderr").read_bytes())
    equal("/readyz", castoff.get("/readyz")[0], 200)
    code, _ = castoff.stop()
    equal("the code of a program that goes on", code, 5)
    return f"{', '.join(said)}; one that goes on is served and ends with its own 5"


def ended_amid_a_line(at):
    """SIGTERM in the middle of a line: what there is of it comes out, and every line before it"""
    end, other = os.pipe()
    found = read_all(end)
    castoff = Castoff(at.castoff, child("half"), None, other)
    os.close(other)
    until("half a line is there", lambda: b'"half"' in castoff.log.read_bytes())
    equal("the code", castoff.stop()[0], 143)
    equal("half a line", joined(found()), ["h" * 50_000])

    end, other = os.pipe()
    found = read_all(end)
    castoff = Castoff(at.castoff, child("lines", 1_000_000), None, other)
    os.close(other)
    until("ten lines are there",
          lambda: castoff.metric('castoff_child_log_lines_total{stream="stdout"}') >= 10)
    equal("the code", castoff.stop()[0], 143)
    texts = joined(found())
    for number, text in enumerate(texts):
        whole = f"{number:08} " + "z" * (1_000_000 - 10)
        if text != whole and not (number == len(texts) - 1 and whole.startswith(text)):
            raise Wrong(f"line {number} of {len(texts)}: {len(text)} bytes, {text[:80]}")
    return f"50000 bytes of a line; of {len(texts)} lines of 1 MB the last has {len(texts[-1])} bytes"


def crowd(at):
    """a thousand processes that write to the same pipe: no line torn, the order of each kept"""
    end, other = os.pipe()
    found = read_all(end)
    castoff = Castoff(at.castoff, child("crowd", 1000, 100), None, other)
    os.close(other)
    equal("the code", castoff.code(), 0)
    texts = joined(found())
    following = [0] * 1000
    changes, last = 0, None
    for text in texts:
        who, number, filling = text.split(" ")
        who, number = int(who), int(number)
        equal(f"the line of {who}", number, following[who])
        equal("its text", filling, "y" * ((who * 7 + number) % 500))
        following[who] += 1
        changes, last = changes + (who != last), who
    equal("lines of each", set(following), {100})
    if changes < 2000:
        raise Wrong(f"they have not written at once: only {changes} turns")
    return f"{len(texts)} lines of 1000 in {changes} turns"


def restarts(at):
    """restarts while nobody reads: memory and descriptors do not grow"""
    end, other = os.pipe()
    settings = {"CASTOFF_RESTART": "always", "CASTOFF_RESTART_MIN": "1ms",
                "CASTOFF_RESTART_MAX": "1ms"}
    castoff = Castoff(at.castoff, ("sh", "-c", 'printf "%01999d\\n" $$; sleep 0.01'), settings, other)
    os.close(other)

    def figures_after(count):
        until(f"{count} restarts",
              lambda: castoff.metric("castoff_child_restarts_total") >= count)
        # Between children there are fewer.
        return max(castoff.descriptors() for _ in range(50)), castoff.memory()

    descriptors, memory = figures_after(60)
    more, most = figures_after(260)
    if more > descriptors + 2 or most > memory + 512:
        raise Wrong(f"{descriptors} descriptors and {memory} KiB, 200 restarts later {more} and {most}")
    found = read_all(end)
    castoff.stop()
    read = [int(text) for text in joined(found())]
    # A line of each.
    lost = sum(event["bytes"] for event in castoff.events("child_output_lost")) / 2000
    runs = len(castoff.events("child_started"))
    if read != sorted(read):
        raise Wrong(f"not in their order: {read}")
    # The last may have had no time to write.
    if not (lost > 100 and runs - 1 <= len(read) + lost <= runs):
        raise Wrong(f"of {runs} runs {len(read)} lines were read, and {lost:g} told of as lost")
    return (f"{descriptors} descriptors and {memory} KiB, 200 restarts later {more} and {most} KiB; of "
            f"{runs} runs {len(read)} lines were read in the end, in order, {lost:g} told of as lost")


def closes_stdout(at):
    """a program that closes its standard output goes on, and has its own end"""
    end, other = os.pipe()
    found = read_all(end)
    castoff = Castoff(at.castoff, child("close"), None, other)
    os.close(other)
    until("it goes on", lambda: castoff.log.read_bytes().count(b'"goes on"') > 20)
    ticks = castoff.ticks()
    time.sleep(1)
    spent = castoff.ticks() - ticks
    if spent > 20:
        raise Wrong(f"{spent} ticks in a second")
    equal("/readyz", castoff.get("/readyz")[0], 200)
    equal("the code", castoff.stop()[0], 9)
    equal("what it has said", joined(found()), ["before"])
    return f"{spent} ticks of CPU in a second in which it went on, /readyz 200, code 9"


REOPEN = ("echo a >/dev/stdout; echo b >/proc/self/fd/1; exec >/dev/stdout; echo c; "
          "exec sh -c 'id -u; echo d >/dev/stdout; echo e >/dev/stderr'")


def reopened(at):
    """a program of another user that opens its streams again by name"""
    end, other = os.pipe()
    found = read_all(end)
    castoff = Castoff(at.castoff, ("sh", "-c", REOPEN), {"CASTOFF_USER": "65534:65534"}, other)
    os.close(other)
    equal("the code", castoff.code(), 0)
    equal("its lines", joined(found()), ["a", "b", "c", "65534", "d"])
    if b'"msg":"e"' not in castoff.log.read_bytes():
        raise Wrong("nothing on stderr")
    # One that changes its user by itself may not open a pipe of root's, with castoff as without.
    itself = ("setpriv", "--reuid=65534", "--clear-groups", "sh", "-c", "echo a >/dev/stdout")
    end, other = os.pipe()
    alone = without(itself, other, subprocess.DEVNULL).wait(20)
    castoff = Castoff(at.castoff, itself, None, other)
    os.close(other)
    equal("the code of one that changes its user by itself", castoff.code(), alone)
    os.close(end)
    return f"all lines under CASTOFF_USER; by setpriv refused with {alone}, as without castoff"


PROOFS = (flood, stalled, both_stalled, killed_readers, ended_amid_a_line, crowd, restarts,
          closes_stdout, reopened)
