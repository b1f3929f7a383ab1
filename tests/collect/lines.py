"""What the program writes, and what a collector has to find of it.

Every line has its number, but empty ones; they are the same in each run.
"""
from dataclasses import dataclass
import json
import random

STREAMS = ("stdout", "stderr")
# Beyond the 16 KiB that a line of castoff's may have.
LONG = (20_000, 33_333, 100_000, 250_000)
LONGEST = 2_000_000


@dataclass(frozen=True, slots=True)
class Expected:
    """Of one line: its text, or the members of the object that it was."""
    text: str | None
    members: dict | None = None


def plain(chance, words):
    return words + b" GET /orders/%d 200" % chance.randrange(10**6)


def quoted(_, words):
    return words + b' "a\\b" \t <&>/ \x01\x7f'


def coloured(_, words):
    return b"\x1b[31m" + words + b"\x1b[0m \x1b[1;32mok\x1b[m"


def wide(_, words):
    return words + " жизнь 日本 😀 e\u0301 \u2028\ufeff".encode()


def broken(_, words):
    """Invalid UTF-8: cut sequences, lone continuations, surrogates, overlong, beyond the last."""
    return words + b" \xff\xfe \xe2\x82 \x80 \xed\xa0\x80 \xc0\xaf \xf4\x90\x80\x80 \xf0\x9f\x98"


def with_nul(_, words):
    return words + b" before\0after\0"


def returning(_, words):
    return words + b" 10%\r 20%\r 30%"


TEXTS = (*[plain] * 12, quoted, coloured, wide, broken, with_nul, returning)


def members_of(chance, number, words):
    members = {"n": number, "msg": words.decode()}
    if chance.random() < 0.5:
        members["level"] = chance.choice(("debug", "info", "WARN", "error"))
    if chance.random() < 0.2:
        members["time"] = "2026-11-20T10:00:00Z"
    if chance.random() < 0.3:
        members["nested"] = {"list": [1, 2.5, None, True, "é\0\u001b\n"], "": {}}
    return members


def lines(stream, count):
    """Bytes and `Expected` of each."""
    chance = random.Random(stream)
    for number in range(count):
        words = b"%s %d" % (stream.encode(), number)
        kind = chance.random()
        if number % 3000 == 1500:
            size = LONGEST if number % 60_000 == 1500 else chance.choice(LONG)
            line = chance.choice((plain, quoted, wide, broken))(chance, words) + b" "
            line = (line * (size // len(line) + 1))[:size]
            # A large object is text as well.
            if chance.random() < 0.3:
                line = json.dumps({"n": number, "msg": line.decode(errors="replace")}).encode()
        elif kind < 0.02:
            line = b""
        elif kind < 0.22:
            members = members_of(chance, number, words)
            separators = chance.choice((None, (",", ":")))
            line = json.dumps(members, separators=separators, ensure_ascii=kind < 0.1).encode()
            yield line + chance.choice((b"\n", b"\r\n")), Expected(members["msg"], members)
            continue
        else:
            line = chance.choice(TEXTS)(chance, words)
        end = b"\r\n" if kind > 0.95 else b"\n"
        if number == count - 1:
            line, end = words + b" the last, without an end", b""
        yield line + end, Expected(line.decode(errors="replace"))
