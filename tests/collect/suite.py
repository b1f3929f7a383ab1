"""The proofs, one after another, a line for each."""
from dataclasses import dataclass
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

import adversaries
from castoff import WORK, Castoff, Wrong
import collectors

TIME_LIMIT = 230
PROOFS = (*collectors.PROOFS, *adversaries.PROOFS)


class Late(Exception):
    """The time for all is over."""


@dataclass(frozen=True)
class Place:
    castoff: str
    unpacked: Path


def prove(proof, at):
    """Whether it held. Says what was seen, or what was seen instead."""
    begun = time.monotonic()
    try:
        words, held = proof(at), True
    except (Wrong, OSError, KeyError, ValueError, subprocess.SubprocessError) as error:
        words, held = f"WRONG: {type(error).__name__}: {error}", False
    running, Castoff.running = Castoff.running, []
    for castoff in running:
        castoff.end()
    seconds = time.monotonic() - begun
    print(f"{'ok' if held else 'FAILED'} {proof.__name__} ({proof.__doc__}): {words} "
          f"[{seconds:.1f} s]", flush=True)
    if not held:
        for castoff in running:
            last = castoff.log.read_text(errors="replace").splitlines()[-20:]
            print("\n".join(["--- its log", *(line[:300] for line in last)]), flush=True)
    for castoff in running:
        castoff.log.unlink(missing_ok=True)
    return held


def main(castoff, unpacked, *chosen):
    known = {proof.__name__: proof for proof in PROOFS}
    if unknown := set(chosen) - set(known):
        print(f"no such proof: {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        return 2
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=755", "none", WORK], check=True)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)

    def late(*_):
        raise Late

    signal.signal(signal.SIGALRM, late)
    signal.alarm(TIME_LIMIT)
    held = []
    try:
        for name in chosen or known:
            held.append(prove(known[name], Place(castoff, Path(unpacked))))
    except Late:
        # All that it has started ends with it, being process 1.
        print(f"FAILED {name}: not at an end after {TIME_LIMIT} s of all")
        held.append(False)
    print(f"{sum(held)} passed, {len(held) - sum(held)} failed")
    return 0 if all(held) else 1


if __name__ == "__main__":
    if os.geteuid() != 0:
        sys.exit("this makes namespaces and needs root")
    sys.exit(main(*sys.argv[1:]))
