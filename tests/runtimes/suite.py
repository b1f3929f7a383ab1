"""The cases, a line for each, and the table of what was said."""
import concurrent.futures
from dataclasses import dataclass
import itertools
import json
import os
from pathlib import Path
import subprocess
import sys
import time

from cgroups import Group
from runtimes import HOST, MIB, PROGRAMS, Wrong, build, equal

ALL_PROFILES = "default,java,node,web,julia,malloc"
# Seconds for one start of one runtime, with half a CPU on a machine that does other things.
START_LIMIT = 60


@dataclass(frozen=True)
class Limit:
    cpus: float | None = None
    memory: int | None = None

    def __str__(self):
        words = [f"{self.cpus:g} CPUs"] if self.cpus is not None else []
        words += [f"{self.memory // MIB} MiB"] if self.memory is not None else []
        return ", ".join(words) or "none"

    def of(self, kind):
        """The limit that a fact depends on."""
        return Limit(**{kind: getattr(self, kind)})


LIMITS = (Limit(), Limit(0.5), Limit(1.5), Limit(memory=128 * MIB), Limit(0.5, 128 * MIB),
          Limit(1.5, 512 * MIB), Limit(2, 1024 * MIB))


@dataclass(frozen=True)
class Said:
    facts: dict
    exports: dict


class Machine:
    """Where programs run: one cgroup for each start, and the environment of a container."""

    def __init__(self, castoff):
        self.castoff = castoff
        self.numbers = itertools.count()

    def ask(self, runtime, limit, settings=None, before=(), variables=(), arguments=None):
        """What it says: below castoff with these settings, or without castoff."""
        command = [str(word) for word in (*before, *(arguments or runtime.command))]
        environment = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **runtime.environment,
                       **dict(variables)}
        if settings is not None:
            command = [self.castoff, "--", *command]
            environment.update(CASTOFF_HEALTH_LISTEN="off", **settings)
        group = Group(f"castoff-runtimes-{os.getpid()}-{next(self.numbers)}",
                      limit.cpus, limit.memory)
        try:
            done = subprocess.run(
                ["sh", "-c", 'while [ "$1" != -- ]; do echo 0 > "$1/cgroup.procs" || exit; shift; '
                 'done; shift; exec "$@"', "sh", *map(str, group.directories), "--", *command],
                env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                timeout=START_LIMIT)
        except subprocess.TimeoutExpired as late:
            raise Wrong(f"not at an end after {START_LIMIT} s: {late.stderr}") from None
        finally:
            group.remove()
        if done.returncode != 0:
            raise Wrong(f"ended with {done.returncode}:\n{done.stdout}{done.stderr}")
        facts = {}
        for line in done.stdout.splitlines():
            word, _, value = line.partition(" ")
            facts[word] = int(value) if value.isdigit() else value
        events = [json.loads(line) for line in done.stderr.splitlines() if line[:1] == "{"]
        return Said(facts, {event["name"]: event["value"] for event in events
                            if event["event"] == "env_exported"})


def shown(value):
    """A number of bytes as one can read it."""
    if isinstance(value, int) and value >= MIB:
        return "no limit" if value >= 2**62 else f"{value / MIB:.4g} MiB"
    return str(value)


def one(machine, runtime, limit):
    """One runtime under one limit: by itself, below castoff, and with all the profiles. Returns
    the rows of the table, and what went wrong."""
    rows, wrong, told = [], [], []
    bare = machine.ask(runtime, limit)
    for settings, lines, check in (({}, runtime.rows, runtime.check),
                                   ({"CASTOFF_SIZING": ALL_PROFILES}, runtime.opt_in_rows,
                                    runtime.opt_in_check)):
        words = settings.get("CASTOFF_SIZING", "default")
        try:
            said = machine.ask(runtime, limit, settings)
            for variable, fact, kind in lines:
                # Without that limit it is told once.
                if getattr(limit, kind) is None and limit != Limit():
                    continue
                value = said.exports.get(variable, "-" if variable == "-" else "not set")
                rows.append((f"{runtime.name}: {fact}", limit.of(kind), variable, value,
                             shown(said.facts.get(fact)), shown(bare.facts.get(fact))))
                told.append(f"{fact} {shown(said.facts.get(fact))}")
            if limit == Limit():
                equal("what is exported", said.exports, {})
            if check:
                check(limit, said.facts, bare.facts, said.exports)
        except (Wrong, KeyError) as error:
            wrong.append(f"{words}: {type(error).__name__}: {error}")
    return rows, wrong, ", ".join(told)


HALF = Limit(0.5, 256 * MIB)
OPT_IN = {"CASTOFF_SIZING": ALL_PROFILES}


def set_values():
    """(runtime, variables, fact): what is set decides as it does without castoff."""
    yield "Go 1.19", {"GOMAXPROCS": "7"}, "GOMAXPROCS", 7
    yield "Go 1.26", {"GOMAXPROCS": "7"}, "GOMAXPROCS", 7
    yield "Go 1.19", {"GOMEMLIMIT": "50MiB"}, "SetMemoryLimit", 50 * MIB
    yield "Go 1.19", {"GOMEMLIMIT": ""}, "SetMemoryLimit", None
    yield "OpenMP, glibc", {"OMP_NUM_THREADS": "3"}, "max_threads", 3
    yield "OpenMP, glibc", {"MALLOC_ARENA_MAX": "4"}, "arenas", 4
    yield "CPython 3.13", {"PYTHON_CPU_COUNT": "5"}, "process_cpu_count", 5
    yield "CPython 3.13", {"PYTHON_CPU_COUNT": "default"}, "process_cpu_count", HOST
    yield "Node", {"NODE_OPTIONS": "--max-old-space-size=100"}, "heap_size_limit", None
    yield "Node", {"NODE_OPTIONS": "--max_old_space_size=100"}, "heap_size_limit", None
    yield "Node", {"NODE_OPTIONS": ""}, "heap_size_limit", None
    yield "OpenJDK 17", {"JAVA_TOOL_OPTIONS": ""}, "maxMemory", None
    yield "OpenJDK 17", {"JAVA_TOOL_OPTIONS": "-Xmx64m"}, "maxMemory", None
    yield "OpenJDK 17", {"JAVA_TOOL_OPTIONS": "-XX:MaxRAMPercentage=40"}, "maxMemory", None
    yield "OpenJDK 17", {"JDK_JAVA_OPTIONS": "-Xmx64m"}, "maxMemory", None
    yield "gunicorn, uvicorn", {"WEB_CONCURRENCY": "3"}, "gunicorn", 3
    yield "Ruby, Puma", {"WEB_CONCURRENCY": "3"}, "puma_workers", 3


def stays(machine, runtime, variables, fact, wanted):
    bare = machine.ask(runtime, HALF, variables=variables.items()).facts[fact]
    said = machine.ask(runtime, HALF, OPT_IN, variables=variables.items())
    equal(fact, said.facts[fact], bare)
    if wanted is not None:
        equal(fact, bare, wanted)
    return f"{fact} {shown(bare)}"


def argument_decides(machine, runtimes):
    """-Xmx and --max-old-space-size on the command line."""
    for name, argument, fact in (("OpenJDK 17", "-Xmx64m", "maxMemory"),
                                 ("Node", "--max-old-space-size=100", "heap_size_limit")):
        first, *rest = runtimes[name].command
        command = (first, argument, *rest)
        bare = machine.ask(runtimes[name], HALF, arguments=command).facts[fact]
        equal(fact, machine.ask(runtimes[name], HALF, OPT_IN, arguments=command).facts[fact], bare)
    return "as without castoff"


def options_are_kept(machine, runtimes):
    """What is in an option string stays there when castoff appends to it."""
    java, node = runtimes["OpenJDK 17"], runtimes["Node"]
    said = machine.ask(java, HALF, OPT_IN, variables=[
        ("JAVA_TOOL_OPTIONS", "-XX:ActiveProcessorCount=3")])
    equal("availableProcessors", said.facts["availableProcessors"], 3)
    java.opt_in_check(HALF, {**said.facts, "availableProcessors": 1},
                      {"availableProcessors": 1}, said.exports)
    said = machine.ask(node, HALF, OPT_IN, variables=[("NODE_OPTIONS", "--stack-trace-limit=3")])
    equal("stackTraceLimit", said.facts["stackTraceLimit"], 3)
    node.opt_in_check(HALF, said.facts, said.facts, said.exports)
    return "both count"


def new_go_is_seen(machine, runtimes):
    """Through env, and one exec of a shell: no GOMAXPROCS for Go 1.26."""
    new, old = runtimes["Go 1.26"], runtimes["Go 1.19"]
    for before in (("env", "A=b"), ("/usr/bin/env", "--", "A=b", "C=d")):
        said = machine.ask(new, HALF, {}, before)
        new.check(HALF, said.facts, {"GOMAXPROCS": min(HOST, 2)}, said.exports)
    for runtime in (new, old):
        said = machine.ask(runtime, HALF, {}, arguments=(
            "sh", "-c", f"exec {runtime.command[0]}"))
        runtime.check(HALF, said.facts, {"GOMAXPROCS": min(HOST, 2)}, said.exports)
    return "GOMEMLIMIT, and GOMAXPROCS for 1.19 only"


def no_executable_is_too_odd(machine, runtimes):
    """A script that hides the program, broken ELF, a loop of #!: all end as they would."""
    work = Path(runtimes["Go 1.26"].command[0]).parent
    script = work / "hides"
    script.write_text(f'#!/bin/sh\n"{runtimes["Go 1.26"].command[0]}"\n')
    script.chmod(0o755)
    said = machine.ask(runtimes["Go 1.26"], HALF, OPT_IN, arguments=(script,))
    equal("SetMemoryLimit(-1)", said.facts["SetMemoryLimit"], int(HALF.memory * 0.9))
    odd = work / "odd"
    whole = Path(runtimes["Go 1.26"].command[0]).read_bytes()
    for content in (b"\x7fELF", b"\x7fELF" + bytes(range(256)) * 20, b"#!", b"#!\n", b"",
                    b"#!/" + b"x" * 9000, f"#!{odd}\n".encode(), whole[:4096]):
        odd.write_bytes(content)
        odd.chmod(0o755)
        done = subprocess.run([machine.castoff, "--", str(odd)], capture_output=True, text=True,
                              timeout=START_LIMIT, env={"CASTOFF_HEALTH_LISTEN": "off",
                                                        "PATH": os.environ["PATH"]})
        # 126 when the kernel refuses it, the signal's code when the kernel tries.
        if done.returncode not in (126, 127, 128 + 11, 128 + 9, 128 + 7, 0):
            raise Wrong(f"{content[:20]!r} ended with {done.returncode}: {done.stderr}")
        if "panicked" in done.stderr:
            raise Wrong(f"{content[:20]!r}: {done.stderr}")
    return "as without castoff"


FURTHER = (argument_decides, options_are_kept, new_go_is_seen, no_executable_is_too_odd)


def main(castoff, work, chosen):
    begun = time.monotonic()
    if HOST < 2:
        print("this needs two processors")
        return 2
    found, missing = build(Path(work))
    runtimes = {runtime.name: runtime for runtime in found}
    if unknown := set(chosen) - set(runtimes):
        print(f"no such runtime: {', '.join(sorted(unknown))}; there are {', '.join(runtimes)}")
        return 2
    print(f"built in {time.monotonic() - begun:.0f} s", flush=True)
    machine = Machine(castoff)
    passed = failed = skipped = 0
    for words in missing:
        skipped += 1
        print(f"SKIPPED {words}", flush=True)
    table = []
    # As many at a time as there are processors: what they say does not depend on time.
    with concurrent.futures.ThreadPoolExecutor(HOST) as pool:
        jobs = []

        def add(words, function, *arguments):
            jobs.append((words, pool.submit(function, *arguments)))

        for runtime in found:
            if chosen and runtime.name not in chosen:
                continue
            for limit in LIMITS:
                add(f"{runtime.name}, {limit}", one, machine, runtime, limit)
        if not chosen:
            for name, variables, fact, wanted in set_values():
                if name in runtimes:
                    words = " ".join(f"{key}={value}" for key, value in variables.items())
                    add(f"{name} keeps {words}", stays, machine, runtimes[name], variables, fact,
                        wanted)
            for further in FURTHER:
                add(f"{further.__name__} ({further.__doc__})", further, machine, runtimes)
        for words, job in jobs:
            try:
                answer = job.result()
                rows, wrong, told = answer if isinstance(answer, tuple) else ([], [], answer)
            except (Wrong, KeyError, OSError, RuntimeError) as error:
                rows, wrong, told = [], [f"{type(error).__name__}: {error}"], ""
            table.extend(rows)
            passed += not wrong
            failed += bool(wrong)
            print(f"{'FAILED ' if wrong else 'ok     '} {words}: {'; '.join(wrong) or told}",
                  flush=True)
    print("\n| limit | variable | value | runtime: fact | with castoff | without |")
    print("| --- | --- | --- | --- | --- | --- |")
    for fact, limit, variable, value, seen, bare in dict.fromkeys(table):
        print(f"| {limit} | {variable} | {value} | {fact} | {seen} | {bare} |")
    print(f"\nin {time.monotonic() - begun:.0f} s, with {skipped} that could not be had:")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this makes cgroups and needs root")
    sys.exit(main(sys.argv[1], sys.argv[2], sys.argv[3:]))
