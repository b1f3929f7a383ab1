"""The runtimes: how each is built and asked, and what it has to say for a limit.

A program prints facts, a word and a value a line. What is asserted are the facts, never only that
a variable is set.
"""
from dataclasses import dataclass, field
import math
import os
from pathlib import Path
import subprocess

PROGRAMS = Path(__file__).resolve().parent / "programs"
HOST = len(os.sched_getaffinity(0))
MIB = 1024 * 1024
# What Go says for "no limit".
UNLIMITED = 2**63 - 1
# Below that a JVM goes by its MinRAMPercentage, which is 50, and not by its MaxRAMPercentage.
SMALL_FOR_JAVA = 250 * MIB


class Wrong(Exception):
    """What a runtime says is not what it should."""


def equal(words, seen, wanted):
    if seen != wanted:
        raise Wrong(f"{words} is {seen} instead of {wanted}")


def between(words, seen, least, most):
    if not least <= seen <= most:
        raise Wrong(f"{words} is {seen} instead of {least} to {most}")


def up(limit):
    return HOST if limit.cpus is None else max(1, math.ceil(limit.cpus))


def down(limit):
    return HOST if limit.cpus is None else max(1, math.floor(limit.cpus))


def of_go(limit):
    return HOST if limit.cpus is None else min(HOST, max(2, math.ceil(limit.cpus)))


def heap_of_go(limit):
    return UNLIMITED if limit.memory is None else int(limit.memory * 0.9)


@dataclass(frozen=True)
class Runtime:
    name: str
    command: tuple
    # Rows of the table: a variable, the fact that it decides, and of which limit. A dash is for what
    # is left to the runtime. Those of the profiles that have to be asked for come second.
    rows: tuple
    opt_in_rows: tuple = ()
    # Takes the limit, the facts with castoff and those without, and what castoff has exported.
    check: object = None
    opt_in_check: object = None
    environment: dict = field(default_factory=dict)


def go_knows(name, limit, seen, bare):
    equal("GOMAXPROCS(0)", seen["GOMAXPROCS"], of_go(limit))
    equal("SetMemoryLimit(-1)", seen["SetMemoryLimit"], heap_of_go(limit))


def old_go(limit, seen, bare, exports):
    go_knows("old", limit, seen, bare)
    equal("NumCPU", seen["NumCPU"], HOST)


def new_go(limit, seen, bare, exports):
    # It reads the quota itself, again and again, as long as the variable is not there.
    equal("whether GOMAXPROCS is set", seen["frozen"], "false")
    equal("GOMAXPROCS(0)", seen["GOMAXPROCS"], bare["GOMAXPROCS"])
    go_knows("new", limit, seen, bare)


def untouched(limit, seen, bare, exports):
    """castoff leaves it to the runtime."""
    equal("what it says", seen, bare)


def java(limit, seen, bare, exports):
    untouched(limit, seen, bare, exports)
    equal("availableProcessors", seen["availableProcessors"], min(HOST, up(limit)))


def larger_java(limit, seen, bare, exports):
    equal("availableProcessors", seen["availableProcessors"], bare["availableProcessors"])
    if limit.memory is None or limit.memory < SMALL_FOR_JAVA:
        equal("maxMemory", seen["maxMemory"], bare["maxMemory"])
    else:
        # One of two survivor spaces, and what alignment takes, is not counted.
        between("maxMemory", seen["maxMemory"], 0.68 * limit.memory, 0.76 * limit.memory)


def larger_node(limit, seen, bare, exports):
    equal("availableParallelism", seen["availableParallelism"], bare["availableParallelism"])
    if limit.memory is None:
        equal("heap_size_limit", seen["heap_size_limit"], bare["heap_size_limit"])
    else:
        old = int(limit.memory * 0.75) // MIB * MIB
        # The young generation comes on top of it.
        between("heap_size_limit", seen["heap_size_limit"], old, old + 64 * MIB)


def new_python(limit, seen, bare, exports):
    equal("process_cpu_count", seen["process_cpu_count"], up(limit))
    equal("pool", seen["pool"], up(limit))
    equal("affinity", seen["affinity"], HOST)


def threads(limit, seen, bare, exports):
    equal("omp_get_max_threads", seen["max_threads"], down(limit))
    equal("the team", seen["team"], down(limit))
    equal("arenas", seen["arenas"], bare["arenas"])


def few_arenas(limit, seen, bare, exports):
    equal("omp_get_max_threads", seen["max_threads"], down(limit))
    if "MALLOC_ARENA_MAX" in exports:
        equal("arenas", seen["arenas"], int(exports["MALLOC_ARENA_MAX"]))
    else:
        equal("arenas", seen["arenas"], bare["arenas"])
        equal("a limit on memory that is not used", limit.memory, None)


def nproc(limit, seen, bare, exports):
    equal("nproc", seen["nproc"], down(limit))


def as_many_workers(*facts):
    def check(limit, seen, bare, exports):
        for fact in facts:
            if "WEB_CONCURRENCY" not in exports:
                equal(fact, seen[fact], bare[fact])
                equal("a limit on memory that is not used", (limit.memory or 0) // (1024 * MIB), 0)
                continue
            equal(fact, seen[fact], int(exports["WEB_CONCURRENCY"]))
            equal(fact, seen[fact], max(1, limit.memory // (512 * MIB)))
    return check


def build(work):
    """The runtimes that are here, and words for each that is not."""
    clean = {"PATH": os.environ["PATH"], "HOME": str(work), "GOCACHE": str(work / "cache"),
             "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=mod", "GOPROXY": "off", "CGO_ENABLED": "0",
             "LC_ALL": "C.UTF-8"}

    def run(*command, at=work):
        subprocess.run(list(map(str, command)), cwd=at, env=clean, check=True)

    toolchain = next((work / "go").glob("lib/python*/site-packages/go/bin/go"))
    toolchain.chmod(0o755)
    for tool in toolchain.parent.parent.glob("pkg/tool/*/*"):
        tool.chmod(0o755)
    for name, go, version in (("go-old", "/usr/bin/go", "1.19"), ("go-new", toolchain, "1.26")):
        module = work / f"{name}.d"
        module.mkdir(exist_ok=True)
        # Of this line a newer Go makes out whether to look at cgroups at all.
        (module / "go.mod").write_text(f"module size\n\ngo {version}\n")
        (module / "size.go").write_text((PROGRAMS / "size.go").read_text())
        run(go, "build", "-o", work / name, ".", at=module)
    run("javac", "-d", work, PROGRAMS / "Size.java")
    run("gcc", "-O1", "-Wall", "-fopenmp", "-o", work / "size", PROGRAMS / "size.c")

    rows_of_go = (("GOMAXPROCS", "GOMAXPROCS", "cpus"), ("GOMEMLIMIT", "SetMemoryLimit", "memory"))
    python313 = os.environ.get("PYTHON313", "")
    found = [
        Runtime("Go 1.19", (work / "go-old",), rows_of_go, check=old_go),
        Runtime("Go 1.26", (work / "go-new",), rows_of_go, check=new_go),
        Runtime("OpenJDK 17", ("java", "-cp", work, "Size"),
                (("-", "availableProcessors", "cpus"), ("-", "maxMemory", "memory")),
                (("JAVA_TOOL_OPTIONS", "maxMemory", "memory"),), java, larger_java),
        Runtime("Node", ("/usr/bin/node", PROGRAMS / "size.js"),
                (("-", "availableParallelism", "cpus"), ("-", "heap_size_limit", "memory")),
                (("NODE_OPTIONS", "heap_size_limit", "memory"),), untouched, larger_node),
        Runtime("CPython 3.11", ("/usr/bin/python3", PROGRAMS / "size.py"),
                (("PYTHON_CPU_COUNT", "cpu_count", "cpus"),), check=untouched),
        Runtime("gunicorn, uvicorn", ("/usr/bin/python3", PROGRAMS / "workers.py"), (),
                (("WEB_CONCURRENCY", "gunicorn", "memory"), ("WEB_CONCURRENCY", "uvicorn", "memory")),
                untouched, as_many_workers("gunicorn", "uvicorn")),
        Runtime("Ruby, Puma", ("/usr/bin/ruby", PROGRAMS / "size.rb"),
                (("-", "nprocessors", "cpus"),),
                (("WEB_CONCURRENCY", "puma_workers", "memory"),), untouched,
                as_many_workers("puma_workers")),
        Runtime("Erlang", ("/usr/bin/erl", "-noshell", "-eval",
                           'io:format("schedulers_online ~p~n",'
                           '[erlang:system_info(schedulers_online)]),halt().'),
                (("-", "schedulers_online", "cpus"),), check=untouched,
                environment={"HOME": str(work)}),
        Runtime("OpenMP, glibc", (work / "size",), (("OMP_NUM_THREADS", "max_threads", "cpus"),),
                (("MALLOC_ARENA_MAX", "arenas", "memory"),), threads, few_arenas),
        Runtime("coreutils", ("sh", "-c", 'echo "nproc $(nproc)"'),
                (("OMP_NUM_THREADS", "nproc", "cpus"),), check=nproc),
    ]
    missing = []
    if python313:
        found.insert(5, Runtime("CPython 3.13", (python313, PROGRAMS / "size.py"),
                                (("PYTHON_CPU_COUNT", "process_cpu_count", "cpus"),),
                                check=new_python))
    else:
        missing.append("CPython 3.13: there is no python3.13 in PATH")
    return found, missing
