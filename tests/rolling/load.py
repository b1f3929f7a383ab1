"""wrk, one for each way of connecting, as the clients that count every error."""
import asyncio
from dataclasses import dataclass
import signal

from servers import PROGRAMS

CONNECTIONS = 6
# Mean milliseconds between an answer and the next request of a connection.
PAUSE = 80


@dataclass
class Counts:
    requests: int
    errors: dict[str, int]

    @property
    def failed(self):
        return sum(self.errors.values())


class Load:
    def __init__(self, port, keeps_alive, seed):
        self.port, self.keeps_alive, self.seed = port, keeps_alive, seed
        self.process = None

    async def start(self):
        header = [] if self.keeps_alive else ["--header", "Connection: close"]
        # Longer than any run: it ends when it is told to.
        self.process = await asyncio.create_subprocess_exec(
            "wrk", "--threads", "1", "--connections", str(CONNECTIONS), "--duration", "1h",
            "--timeout", "4s", "--script", PROGRAMS / "load.lua", *header,
            f"http://127.0.0.1:{self.port}/", "--", str(self.seed), str(PAUSE),
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT)

    async def stop(self):
        """Ends it. Requests under way at this moment are not counted at all."""
        self.process.send_signal(signal.SIGINT)
        output, _ = await asyncio.wait_for(self.process.communicate(), 10)
        words = output.decode().splitlines()[-1].split()
        numbers = {name: int(value) for name, value in (word.split("=") for word in words)}
        return Counts(numbers.pop("requests"), numbers)
