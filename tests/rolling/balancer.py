"""HAProxy, as the load balancer that is told late, and the second witness of what was lost.

Each server has two backends with the same replicas:

- `<server>` in HTTP mode for clients that keep their connections, as behind an Ingress: HAProxy
  keeps a pool of connections to the replicas and chooses one for each request.
- `<server>-tcp` in TCP mode for clients with a connection for each request, as kube-proxy does it:
  a connection of the client is one to the replica.

A replica leaves by `drain`, not by `maint`. Both give it no new request, pooled connections
included. But `maint` closes the pooled connections at that moment and `drain` leaves them alone, as
Kubernetes does: a removed endpoint is nothing that a proxy tells its peer. It is the harder
case for the replica, which is stopped while connections to it are open.

HAProxy hides nothing: no health checks, no second attempt at the same replica or at another.
"""
import asyncio
import csv
import io

CONFIG = """
global
  stats socket {directory}/socket level admin
  log stdout format raw local0
  nbthread 1

defaults
  retries 0
  no option redispatch
  # More than the second after which TCP repeats a first packet that got lost.
  timeout connect 2s
  timeout client 60s
  timeout server 5s
  timeout queue 1s
  balance roundrobin
  log global
  # Whatever is left in the log has gone wrong.
  option dontlog-normal
  option dontlognull
"""

PAIR = """
frontend {name}-frontend
  mode http
  option httplog
  bind 127.0.0.1:{port}
  default_backend {name}
backend {name}
  mode http

frontend {name}-tcp-frontend
  mode tcp
  option tcplog
  bind 127.0.0.1:{tcp_port}
  default_backend {name}-tcp
backend {name}-tcp
  mode tcp
"""


class Balancer:
    def __init__(self, directory, servers):
        self.directory = directory
        self.log = directory / "haproxy.log"
        self.ports = {name: 8100 + i for i, name in enumerate(servers)}
        self.tcp_ports = {name: 8200 + i for i, name in enumerate(servers)}
        self.process = None
        # Its socket has a short queue, and asyncio takes a full one for a connection.
        self.line = asyncio.Lock()

    async def start(self):
        config = CONFIG.format(directory=self.directory) + "".join(
            PAIR.format(name=name, port=port, tcp_port=self.tcp_ports[name])
            for name, port in self.ports.items())
        file = self.directory / "haproxy.cfg"
        file.write_text(config)
        with self.log.open("wb") as log:
            self.process = await asyncio.create_subprocess_exec(
                "haproxy", "-db", "-f", file, stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log)
        async with asyncio.timeout(10):
            while not await self.answers():
                await asyncio.sleep(0.02)

    async def answers(self):
        try:
            return bool(await self.ask("show version"))
        except OSError:
            return False

    async def ask(self, command):
        async with self.line:
            reader, writer = await asyncio.open_unix_connection(str(self.directory / "socket"))
            try:
                writer.write(f"{command}\n".encode())
                return (await reader.read()).decode().strip()
            finally:
                writer.close()

    async def tell(self, command, expected=""):
        answer = await self.ask(command)
        if answer != expected:
            raise RuntimeError(f"HAProxy, told to {command}: {answer}")

    async def put_in(self, replica, port):
        for backend in self.backends(replica.server.name):
            await self.tell(f"add server {backend}/{replica.name} {replica.address}:{port}",
                            "New server registered.")
            await self.tell(f"set server {backend}/{replica.name} state ready")

    async def take_out(self, replica):
        for backend in self.backends(replica.server.name):
            await self.tell(f"set server {backend}/{replica.name} state drain")

    @staticmethod
    def backends(server):
        return server, f"{server}-tcp"

    async def failures(self):
        """For each backend, what HAProxy itself counts as gone wrong behind it."""
        text = (await self.ask("show stat")).removeprefix("# ")
        rows = [row for row in csv.DictReader(io.StringIO(text)) if row["svname"] == "BACKEND"]
        return {row["pxname"]: {key: int(row[key] or 0) for key in ("econ", "eresp", "hrsp_5xx")}
                for row in rows}

    async def stop(self):
        self.process.kill()
        await self.process.wait()
