"""The proofs, one after another, a line for each, and what went wrong with the logs of it."""
import asyncio
import os
from pathlib import Path
import subprocess
import sys
import time

sys.path.append(str(Path(__file__).resolve().parent.parent / "rolling"))

import announcements
from castoff import WORK, Castoff
import databases
from replicas import make_bridge
from seeing import Wrong, processes
import web

TIME_LIMIT = 220
PROOFS = (*web.PROOFS, *databases.PROOFS, *announcements.PROOFS)


async def prove(proof, binary):
    """Whether it held. Says what was seen, or what was seen instead."""
    running, begun = [], time.monotonic()

    def castoff(name):
        running.append(Castoff(binary, f"{proof.__name__}-{name}"))
        return running[-1]

    facts = []
    try:
        await proof(castoff, facts.append)
        held = True
    except (Wrong, OSError, RuntimeError, TimeoutError) as error:
        facts.append(f"WRONG: {str(error) or type(error).__name__}")
        held = False
    finally:
        # One that was never started has nothing to end.
        running = [replica for replica in running if replica.process]
        for replica in running:
            await replica.kill()
    seconds = f"{time.monotonic() - begun:.1f} s"
    print(f"{proof.__name__} ({proof.__doc__}): {'; '.join(facts)} [{seconds}]", flush=True)
    if not held:
        for replica in running:
            print(f"--- {replica.name}")
            print("\n".join(replica.log.read_text(errors="replace").splitlines()[-60:]), flush=True)
    return held


async def main(binary, chosen):
    known = {proof.__name__: proof for proof in PROOFS}
    if unknown := set(chosen) - set(known):
        print(f"no such proof: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", WORK], check=True)
    await make_bridge()
    held = {}
    try:
        async with asyncio.timeout(TIME_LIMIT):
            for name in chosen or known:
                held[name] = await prove(known[name], binary)
    except TimeoutError:
        print(f"WRONG: {name} is not at an end after {TIME_LIMIT} s of all")
        return 1
    # Everything below the castoffs has ended with them; this one is process 1 here.
    left = [process.command for process in processes() if process.pid != os.getpid()]
    if left:
        print(f"WRONG: left behind: {', '.join(left)}")
    print(f"{sum(held.values())} of {len(held)} proofs held")
    return 0 if all(held.values()) and not left else 1


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this makes namespaces and needs root")
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
