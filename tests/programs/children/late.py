"""An application that takes long to import: as long as its gate is shut."""
import os

with open(os.environ["GATE"]) as gate:
    gate.readline()

from application import wsgi  # noqa: E402,F401
