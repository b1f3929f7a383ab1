"""What is to be seen from outside: conditions, answers to a GET, and processes."""
import asyncio
from dataclasses import dataclass
from pathlib import Path
import time

# How often a condition is looked at, in seconds.
LOOK = 0.01


class Wrong(Exception):
    """What was seen is not what was to be proven."""


async def until(words, condition, limit=15):
    """Awaits a condition, and returns how many seconds it took."""
    begun = time.monotonic()
    while not await condition():
        if time.monotonic() - begun > limit:
            raise Wrong(f"{words}: not within {limit} s")
        await asyncio.sleep(LOOK)
    return time.monotonic() - begun


async def fetch(address, port, path="/", limit=1):
    """Status and body of one GET, or None where there is no whole answer within `limit` seconds."""
    writer = None
    try:
        async with asyncio.timeout(limit):
            reader, writer = await asyncio.open_connection(address, port)
            request = f"GET {path} HTTP/1.1\r\nHost: program\r\nConnection: close\r\n\r\n"
            writer.write(request.encode())
            head, _, body = (await reader.read()).decode().partition("\r\n\r\n")
            return int(head.split()[1]), body
    except (OSError, TimeoutError, IndexError, ValueError):
        return None
    finally:
        if writer:
            writer.close()


@dataclass(frozen=True)
class Process:
    pid: int
    parent: int
    # The name of the program, and its pid in the innermost namespace.
    command: str
    inner_pid: int


def processes():
    """All that run here and below, zombies left out."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            status = (directory / "status").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        if not fields["State"].startswith("Z"):
            found.append(Process(int(directory.name), int(fields["PPid"]), fields["Name"],
                                 int(fields["NSpid"].split()[-1])))
    return found
