"""Starts a castoff and asks its grpc.health.v1 through the child's life, with the client library that
a platform would use. Ends with 1 when an answer is not what it should be.

usage: client.py CASTOFF
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PATIENCE = 30  # seconds: it ends what hangs, and measures nothing

SERVING, NOT_SERVING, SERVICE_UNKNOWN = 1, 2, 3
differences = []


def expect(what, found, expected):
    print(f"{'ok  ' if found == expected else 'BAD '} {what}: {found}")
    if found != expected:
        differences.append(f"{what}: {found}, not {expected}")


class Castoff:
    """castoff, and its log as far as it has been read."""

    def __init__(self, path, scratch):
        # It is started when the file is there, and then ends of nothing but SIGKILL.
        child = "trap : TERM; echo ready; while :; do sleep 0.1; done"
        environment = {
            "PATH": os.environ["PATH"],
            "CASTOFF_HEALTH_LISTEN": "127.0.0.1:0",
            "CASTOFF_GRACE_PERIOD": "10m",
            "CASTOFF_DRAIN_DELAY": "9m",
            "CASTOFF_PRE_START": f"sh -c 'until [ -e {scratch}/go ]; do sleep 0.1; done'",
        }
        self.process = subprocess.Popen(
            [path, "--", "sh", "-c", child],
            env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        )
        self.limit = threading.Timer(PATIENCE * 4, self.process.kill)
        self.limit.start()

    def end(self):
        """Whatever the differences were, nothing is left running."""
        self.limit.cancel()
        self.process.kill()
        self.process.wait()

    def until(self, **fields):
        """Reads the log to the line that has these fields."""
        for line in self.process.stderr:
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if fields.items() <= event.items():
                return event
        raise SystemExit(f"castoff ended without {fields}")


def check(stub, service):
    try:
        request = health_pb2.HealthCheckRequest(service=service)
        return stub.Check(request, timeout=PATIENCE).status
    except grpc.RpcError as error:
        return error.code()


def check_all(stub, phase, live, ready, startup):
    for service, state in (("", ready), ("live", live), ("ready", ready), ("startup", startup)):
        expect(f"{phase}: Check({service!r})", check(stub, service), state)
    expect(f"{phase}: Check('nobody')", check(stub, "nobody"), grpc.StatusCode.NOT_FOUND)
    states = stub.List(health_pb2.HealthListRequest(), timeout=PATIENCE).statuses
    expect(f"{phase}: List()", {name: states[name].status for name in states},
           {"": ready, "live": live, "ready": ready, "startup": startup})


def watch(stub, service):
    request = health_pb2.HealthCheckRequest(service=service)
    return stub.Watch(request, timeout=PATIENCE * 2)


def end_of(stream):
    """The states until the stream's end, and how it ended."""
    states = []
    try:
        for response in stream:
            states.append(response.status)
    except grpc.RpcError as error:
        return states, error.code()
    return states, None


def ask(castoff, scratch):
    address = castoff.until(event="castoff_started")["listen"]
    with grpc.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        check_all(stub, "starting", SERVING, NOT_SERVING, NOT_SERVING)
        whole, live, unknown = watch(stub, ""), watch(stub, "live"), watch(stub, "nobody")
        expect("starting: Watch('')", next(whole).status, NOT_SERVING)
        expect("starting: Watch('live')", next(live).status, SERVING)
        expect("starting: Watch('nobody')", next(unknown).status, SERVICE_UNKNOWN)

        open(f"{scratch}/go", "w").close()
        castoff.until(to="serving")
        expect("serving: Watch('')", next(whole).status, SERVING)
        check_all(stub, "serving", SERVING, SERVING, SERVING)
        expect("serving: an unknown method", unknown_method(channel),
               grpc.StatusCode.UNIMPLEMENTED)
        unknown.cancel()
        expect("serving: a Watch that was given up", end_of(unknown),
               ([], grpc.StatusCode.CANCELLED))

        castoff.process.send_signal(signal.SIGTERM)
        castoff.until(to="draining")
        expect("draining: Watch('')", next(whole).status, NOT_SERVING)
        check_all(stub, "draining", SERVING, NOT_SERVING, SERVING)
        castoff.process.send_signal(signal.SIGTERM)
        castoff.until(to="stopping")
        check_all(stub, "stopping", SERVING, NOT_SERVING, SERVING)
        castoff.process.send_signal(signal.SIGTERM)
        castoff.process.wait(PATIENCE)
        for name, stream in (("", whole), ("live", live)):
            expect(f"ended: Watch({name!r})", end_of(stream), ([], grpc.StatusCode.UNAVAILABLE))


def unknown_method(channel):
    call = channel.unary_unary("/grpc.health.v1.Health/Ask")
    try:
        return call(b"", timeout=PATIENCE)
    except grpc.RpcError as error:
        return error.code()


def main(path):
    with tempfile.TemporaryDirectory() as scratch:
        castoff = Castoff(path, scratch)
        try:
            ask(castoff, scratch)
        finally:
            castoff.end()
    if differences:
        raise SystemExit("\n".join(["", *differences]))


main(*sys.argv[1:])
