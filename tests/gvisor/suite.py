"""The cases, one after another, a line for each, and what went wrong with the logs of it."""
import json
import os
import signal
import subprocess
import sys
import time

from sandbox import WORK, Sandbox, Wrong, make_root, until

EXPORTED = ("CASTOFF_CPUS", "CASTOFF_MEMORY_BYTES", "CASTOFF_PIDS", "GOMAXPROCS", "GOMEMLIMIT",
            "OMP_", "PYTHON_")


def equal(words, seen, wanted):
    if seen != wanted:
        raise Wrong(f"{words}: {seen!r} instead of {wanted!r}")


def warnings(box):
    lines = box.log.read_text(errors="replace").splitlines()
    return [line for line in lines if line.startswith("{") and '"level":"INFO"' not in line]


def another_kernel(sandbox, say):
    """this is gVisor, and what castoff has to do without is not there"""
    box = sandbox().start("--", "sh", "-c", "dmesg | head -n 1; cat /proc/self/cgroup; "
                          "ls /sys/fs/cgroup /proc/self/task/*/children 2>&1; echo end")
    equal("the code", box.code(), 0)
    lines = box.lines()
    if "gVisor" not in lines[0] or lines[-1] != "end":
        raise Wrong(f"the child saw {lines}")
    there = [line for line in lines if line.startswith(("0:", "1:", "cgroup", "cpu"))]
    equal("cgroup files", there, [])
    say(lines[0].partition("] ")[2])


def codes(sandbox, say):
    """the child's exit code, 128+n, 127, 126 and 125"""
    for words, command, code, reason in (
            ("7", ("sh", "-c", "exit 7"), 7, "exited"),
            ("SIGKILL", ("sh", "-c", "kill -KILL $$"), 137, "signalled"),
            ("SIGSEGV", ("sh", "-c", "kill -SEGV $$"), 139, "signalled"),
            ("not found", ("no-such-program",), 127, None), ("a directory", ("/tmp",), 126, None)):
        box = sandbox().start("--", *command)
        equal(words, box.code(), code)
        equal(words, [event["reason"] for event in box.events("child_exited")],
              [reason] if reason else [])
        equal(words, box.event("exiting")["exit_code"] if reason else code, code)
    equal("a wrong setting", sandbox().start(settings={"CASTOFF_GRACE": "x"}).code(), 125)
    say("7, 137, 139, 127, 126, 125")


def no_limits(sandbox, say):
    """without cgroups nothing is exported"""
    box = sandbox().start("--", "env")
    equal("the code", box.code(), 0)
    equal("exported", [line for line in box.lines() if line.startswith(EXPORTED)], [])
    limits = box.event("limits_detected")
    equal("limits", {key: limits.get(key) for key in ("cgroup", "cpus", "memory_bytes", "pids")},
          {"cgroup": "none", "cpus": None, "memory_bytes": None, "pids": None})
    say("none")


def virtual_cgroups(sandbox, say):
    """with gVisor's own cgroupfs, whose files are nobody's limits and cannot be watched"""
    box = sandbox().start("--", "sh", "-c", "ls /sys/fs/cgroup; cat /proc/self/cgroup; "
                          "exec graceful 0", cgroups=True,
                          settings={"CASTOFF_RESIZE_ACTION": "restart"})
    box.until_line("working")
    box.until_serving()
    seen = " ".join(line for line in box.lines() if "graceful" not in line)
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    equal("children", len(box.events("child_started")), 1)
    say(f"the child saw {seen}; limits {box.event('limits_detected')['cgroup']}")


def explained(sandbox, say):
    """castoff explain, plain and --json"""
    box = sandbox().start("explain", "--", "echo", "ran")
    equal("the code", box.code(), 0)
    equal("the child ran", "ran" in box.lines(), False)
    box = sandbox().start("explain", "--json", "--", "echo", "ran")
    equal("the code", box.code(), 0)
    told = json.loads("\n".join(box.lines()))
    limits = told["limits"]
    equal("limits", {key: limits[key] for key in ("cgroup", "cpus", "memory_bytes", "pids")},
          {"cgroup": "none", "cpus": None, "memory_bytes": None, "pids": None})
    equal("exports", told["exports"], [])
    if not told["timeline"]:
        raise Wrong("no timeline")
    say(f"{len(told['timeline'])} steps of a stop, no limits")


def orphans(sandbox, say):
    """200 orphans and their parents are reaped while it serves, and none is a zombie"""
    box = sandbox().start("--", "sh", "-c", "forker orphans 200; exec graceful 0",
                          settings={"CASTOFF_LOG_LEVEL": "debug"})
    until("all reaped", lambda: len(box.events("orphan_reaped")) == 400)
    code, stats = box.inside("/bin/sh", "-c", "cat /proc/[0-9]*/stat 2>/dev/null")
    equal("looking", (code, [line for line in stats.splitlines() if ") Z " in line]), (0, []))
    _, metrics = box.inside("/bin/wget", "-q", "-O", "-", "http://127.0.0.1:9911/metrics")
    equal("the metric", "castoff_orphans_reaped_total 400" in metrics.splitlines(), True)
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    say("400 of 400")


def probes(sandbox, say):
    """castoff probe inside: ready, then draining, then answered by nobody"""
    box = sandbox().start("--", "graceful", "100", settings={
        "CASTOFF_DRAIN_DELAY": "6s", "CASTOFF_GRACE_PERIOD": "25s"})
    box.until_serving()
    for level in ("live", "ready", "started"):
        equal(level, box.inside("/castoff", "probe", level)[0], 0)
    box.kill(signal.SIGTERM)
    until("draining", lambda: box.phases().endswith("draining"))
    equal("ready in the drain", box.inside("/castoff", "probe", "ready")[0], 1)
    equal("live in the drain", box.inside("/castoff", "probe", "live")[0], 0)
    equal("the code", box.code(), 0)
    equal("phases", box.phases(), "serving draining stopping exited")
    stop = box.event("exiting")["stop_ms"]
    if stop < 6000:
        raise Wrong(f"a drain of 6 s that took {stop} ms")
    say(f"stopped in {stop} ms")


def signals(sandbox, say):
    """each signal that is none of a stop reaches the child"""
    box = sandbox().start("--", "print_signals")
    box.until_line("ready")
    box.until_serving()
    sent = [signal.SIGUSR1, signal.SIGHUP, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH,
            signal.SIGALRM]
    for number in sent:
        before = len(box.lines())
        box.kill(number)
        until(f"signal {int(number)} arrives", lambda before=before: len(box.lines()) > before)
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    seen = [int(line.split()[0]) for line in box.lines()[1:]]
    equal("what came", seen, [*map(int, sent), int(signal.SIGTERM)])
    say(" ".join(map(str, seen)))


def kill_at_the_deadline(sandbox, say):
    """a stubborn child and its companions are killed at the deadline, and nobody is left"""
    box = sandbox().start("--", "stubborn", "2", settings={
        "CASTOFF_GRACE_PERIOD": "4s", "CASTOFF_KILL_RESERVE": "2s"})
    until("three of them", lambda: len(box.lines()) == 3)
    box.until_serving()
    begun = time.monotonic()
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 137)
    if time.monotonic() - begun < 2:
        raise Wrong(f"it did not wait: {time.monotonic() - begun:.2f} s")
    equal("phases", box.phases(), "serving stopping killing exited")
    equal("the reason", box.event("child_exited")["reason"], "killed_at_deadline")
    equal("survivors", [name for name in json.dumps(box.event("survivors")).split('"')
                        if name == "stubborn"], ["stubborn"] * 3)
    say(f"stopped in {box.event('exiting')['stop_ms']} ms")


def daemons_are_swept(sandbox, say):
    """what the child leaves behind in a session of its own is stopped too"""
    box = sandbox().start("--", "forker", "leave", "/tmp/record")
    equal("the code", box.code(), 7)
    if "sweeping" not in box.phases():
        raise Wrong(f"phases are {box.phases()}")
    say(box.phases())


def drain_by_traffic(sandbox, say):
    """the child's listening port is found, and a drain by traffic ends before its maximum"""
    box = sandbox().start("--", "sh", "-c", "nc -ll -p 8080 -e cat & exec graceful 0", settings={
        "CASTOFF_DRAIN_DELAY": "200ms", "CASTOFF_DRAIN_MAX": "20s", "CASTOFF_DRAIN_QUIET": "500ms",
        "CASTOFF_DRAIN_PORTS": "8080", "CASTOFF_GRACE_PERIOD": "28s",
        "CASTOFF_READY_CHECK": "tcp://127.0.0.1:8080", "CASTOFF_CHECK_PERIOD": "100ms"})
    until("ready", lambda: box.inside("/castoff", "probe", "ready")[0] == 0)
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    finished = box.event("drain_finished")
    if finished["reason"] not in ("quiet", "max", "delay"):
        raise Wrong(f"drain_finished: {finished}")
    say(f"{finished['reason']} after {finished['waited_ms']} ms")


def helpers(sandbox, say):
    """hooks, an exec: check, and a restart"""
    box = sandbox().start("--", "sh", "-c", "if [ -e /tmp/again ]; then exec graceful 0; fi; "
                          "touch /tmp/again; exit 3", settings={
        "CASTOFF_PRE_START": "touch /tmp/prepared", "CASTOFF_CHECK_PERIOD": "100ms",
        "CASTOFF_READY_CHECK": "exec:test -e /tmp/again", "CASTOFF_RESTART": "on-failure",
        "CASTOFF_RESTART_MIN": "50ms", "CASTOFF_PRE_STOP": "echo before the stop"})
    until("started again", lambda: len(box.events("child_started")) == 2)
    until("ready", lambda: box.inside("/castoff", "probe", "ready")[0] == 0)
    equal("prepared", box.inside("/bin/test", "-e", "/tmp/prepared")[0], 0)
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    say("both children ran")


def nobody(sandbox, say):
    """as a user without any right"""
    box = sandbox().start("--", "sh", "-c", "id -u; exit 5", user=65534)
    equal("the code", box.code(), 5)
    equal("the child's user", box.lines(), ["65534"])
    equal("warnings", warnings(box), [])
    say("exit code 5")


def termination_message(sandbox, say):
    """an abnormal end is told in the file that the platform mounts, and a normal one is not"""
    message = WORK / "message"
    for command, told in (("exit 0", False), ("exit 9", True)):
        message.write_text("")
        box = sandbox().start("--", "sh", "-c", command, mounts=[(message, "/dev/termination-log")])
        equal("the code", box.code(), 9 if told else 0)
        text = message.read_text()
        equal("told", bool(text), told)
        if told and not ("9" in text and len(text.encode()) <= 4096):
            raise Wrong(f"the message is {text!r}")
    say(repr(text.splitlines()[0]))


def wrapped_lines(sandbox, say):
    """CASTOFF_CHILD_LOGS=json: nothing lost, order kept, last words"""
    box = sandbox().start("--", "sh", "-c", "seq 20000 & seq 20000 >&2; wait; echo last >&2; exit 3",
                          settings={"CASTOFF_CHILD_LOGS": "json"})
    equal("the code", box.code(), 3)
    for path, stream, more in ((box.out, "stdout", []), (box.log, "stderr", ["last"])):
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        said = [line["msg"] for line in lines if line.get("stream") == stream]
        if said != [str(number) for number in range(1, 20001)] + more:
            raise Wrong(f"{len(said)} lines of {stream}, the last {said[-3:]}")
    equal("last words", box.event("child_exited")["last_words"][-1], "last")
    equal("warnings", [line for line in warnings(box) if '"event"' in line], [])
    say("20,000 on each stream")


def a_changed_file(sandbox, say):
    """CASTOFF_WATCH and a swap as of a ConfigMap"""
    script = ("mkdir -p /tmp/v/..1 /tmp/v/..2; echo 1 > /tmp/v/..1/a; echo 2 > /tmp/v/..2/a; "
              "ln -s ..1 /tmp/v/..data; ln -s ..data/a /tmp/v/a; trap 'cat /tmp/v/a' HUP; trap exit TERM; "
              "echo ready; while :; do sleep 0.1; done")
    box = sandbox().start("--", "sh", "-c", script, settings={"CASTOFF_WATCH": "/tmp/v"})
    box.until_line("ready")
    # The files are new to castoff as well: that is the first change, or the same.
    box.inside("/bin/sh", "-c", "ln -s ..2 /tmp/v/..new; mv -T /tmp/v/..new /tmp/v/..data")
    box.until_line("2")
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    say(f"{box.event('config_changed')['list']}")


def as_another_user(sandbox, say):
    """CASTOFF_USER, CASTOFF_WORKDIR"""
    box = sandbox().start("--", "sh", "-c", "id -u; id -g; pwd", settings={
        "CASTOFF_USER": "1000:1001", "CASTOFF_WORKDIR": "/tmp"},
        capabilities=("CAP_SETUID", "CAP_SETGID"))
    equal("the code", box.code(), 0)
    equal("user, group and directory", box.lines(), ["1000", "1001", "/tmp"])
    say("1000:1001 in /tmp")


def quiet_when_idle(sandbox, say):
    """no warning about what this kernel does not have, and no metric without a source"""
    box = sandbox().start("--", "graceful", "0", settings={"CASTOFF_RESIZE_ACTION": "signal:HUP"})
    box.until_serving()
    _, metrics = box.inside("/bin/wget", "-q", "-O", "-", "http://127.0.0.1:9911/metrics")
    for line in metrics.splitlines():
        if not line.startswith("#"):
            float(line.rpartition(" ")[2])
    for name in ("castoff_memory_limit_bytes", "castoff_cpu_limit_cores", "castoff_pressure",
                 "castoff_oom_kills_total"):
        equal("a metric without a source", [line for line in metrics.splitlines()
                                            if line.startswith(name)], [])
    _, status = box.inside("/bin/wget", "-q", "-O", "-", "http://127.0.0.1:9911/statusz")
    if not status:
        raise Wrong("no /statusz")
    box.kill(signal.SIGTERM)
    equal("the code", box.code(), 0)
    equal("warnings", warnings(box), [])
    say(f"{len(metrics.splitlines())} lines of metrics")


CASES = (another_kernel, codes, no_limits, virtual_cgroups, explained, orphans, probes, signals,
         kill_at_the_deadline, daemons_are_swept, drain_by_traffic, helpers, nobody,
         termination_message, wrapped_lines, a_changed_file, as_another_user, quiet_when_idle)
TIME_LIMIT = 140


def prove(case):
    boxes, facts, begun = [], [], time.monotonic()

    def sandbox():
        boxes.append(Sandbox(f"{case.__name__.replace('_', '-')}-{len(boxes)}"))
        return boxes[-1]

    try:
        case(sandbox, facts.append)
        held = True
    except (Wrong, OSError, ValueError, KeyError, IndexError, subprocess.SubprocessError) as error:
        facts.append(f"{type(error).__name__}: {error}")
        held = False
    finally:
        for box in boxes:
            box.remove()
    print("ok     " if held else "FAILED ", f"{case.__name__} ({case.__doc__}): {'; '.join(facts)}",
          f"[{time.monotonic() - begun:.1f} s]", flush=True)
    if not held:
        for box in boxes[-1:]:
            for path in (box.out, box.log):
                text = path.read_text(errors="replace") if path.exists() else ""
                print("\n".join(f"  {path.name}: {line}" for line in text.splitlines()[-40:]),
                      flush=True)
    return held


def main(castoff, examples, chosen):
    known = {case.__name__: case for case in CASES}
    if unknown := set(chosen) - set(known):
        print(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", WORK], check=True)
    make_root(castoff, examples)
    # Whatever hangs is ended with all that it has started: this process is PID 1 here.
    signal.alarm(TIME_LIMIT)
    held = [prove(known[name]) for name in chosen or known]
    print(f"{sum(held)} passed, {len(held) - sum(held)} failed")
    return 0 if all(held) else 1


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this makes namespaces and needs root")
    sys.exit(main(*sys.argv[1:3], sys.argv[3:]))
