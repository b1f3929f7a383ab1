"""The program: writes both files, each to its stream, at once and cut anywhere.

    writer.py FILE-FOR-STDOUT FILE-FOR-STDERR
"""
import os
import random
import sys


def pour(path, fd):
    chance = random.Random(path)
    with open(path, "rb") as file:
        left = memoryview(file.read())
    while left:
        # A few bytes, a part of a line, some lines, or more than a pipe holds.
        size = int(10 ** chance.uniform(0.3, 5.2))
        written = os.write(fd, left[:size])
        left = left[written:]


def main():
    other = os.fork()
    if other == 0:
        pour(sys.argv[2], 2)
        os._exit(0)
    pour(sys.argv[1], 1)
    _, status = os.waitpid(other, 0)
    sys.exit(os.waitstatus_to_exitcode(status))


main()
