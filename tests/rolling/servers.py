"""Which programs are served by, none of them ours, and how each is started and stopped."""
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = Path(__file__).resolve().parent / "programs"
PORT = 8080


@dataclass(frozen=True)
class Server:
    name: str
    command: tuple[str, ...]
    # What its image names as STOPSIGNAL.
    stop_signal: str = "SIGTERM"


# Where a program closes idle connections by itself, it gets more time than the proxy keeps them:
# with the few seconds that are the default of gunicorn, uvicorn and Node, a proxy now and then
# sends a request into a connection that is just being closed, whether anything is stopped or not.
KEEP_ALIVE = "75"

SERVERS = {
    server.name: server
    for server in (
        Server("nginx", ("nginx", "-p", ".", "-c", f"{PROGRAMS}/nginx.conf"), "SIGQUIT"),
        Server("gunicorn", (
            "gunicorn", "--bind", f"0.0.0.0:{PORT}", "--chdir", str(PROGRAMS),
            # The default worker serves one connection at a time and closes it: no keep-alive.
            "--worker-class", "gthread", "--threads", "16", "--keep-alive", KEEP_ALIVE,
            "application:wsgi")),
        Server("uvicorn", (
            "/usr/bin/python3", "-m", "uvicorn", "--host", "0.0.0.0", "--port", str(PORT),
            "--app-dir", str(PROGRAMS), "--timeout-keep-alive", KEEP_ALIVE,
            "--no-access-log", "application:asgi")),
        Server("node", ("node", f"{PROGRAMS}/server.js", str(PORT))),
        Server("abrupt", ("/usr/bin/python3", f"{PROGRAMS}/abrupt.py", str(PORT))),
    )
}
