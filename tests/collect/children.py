"""Programs that a log could be in the way of, by their names.

    children.py NAME [ARGUMENT...]
"""
import os
import signal
import sys
import time


def talk(on_broken_pipe):
    """Writes to both streams until somebody ends it. A pipe without a reader `ends` it as it ends
    any program, makes it `exit` with 7, or is left alone, and it `stays`: it says so on the other."""
    if on_broken_pipe == "ends":
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(5))
    broken = set()
    while True:
        for fd in {1, 2} - broken:
            try:
                os.write(fd, b"fd %d is read, fds %s are broken\n" % (fd, str(broken).encode()))
            except BrokenPipeError:
                if on_broken_pipe == "exit":
                    sys.exit(7)
                broken.add(fd)
        time.sleep(0.001)


def crowd(size, count):
    """As many processes, which write as many lines each, at once."""
    gate, opened = os.pipe()
    for who in range(int(size)):
        if os.fork() == 0:
            os.close(opened)
            os.read(gate, 1)
            for number in range(int(count)):
                line = b"%d %d %s\n" % (who, number, b"y" * ((who * 7 + number) % 500))
                os.write(1, line)
            os._exit(0)
    os.close(opened)
    for _ in range(int(size)):
        os.wait()


def lines(size):
    """Lines of that size, numbered, without an end."""
    number = 0
    while True:
        left = memoryview(b"%08d " % number + b"z" * (int(size) - 10) + b"\n")
        while left:
            left = left[os.write(1, left):]
        number += 1


def half():
    """Half a line, and then nothing more."""
    os.write(1, b"h" * 50_000)
    os.write(2, b"half\n")
    signal.pause()


def close():
    """Goes on without standard output."""
    os.write(1, b"before\n")
    os.close(1)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(9))
    while True:
        os.write(2, b"goes on\n")
        time.sleep(0.01)


{"talk": talk, "crowd": crowd, "lines": lines, "half": half, "close": close}[sys.argv[1]](*sys.argv[2:])
