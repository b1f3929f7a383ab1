"""What is compared: the ways to supervise a server, and the settings of each."""
import subprocess

NAMES = ("tini", "fixed", "adaptive")

# What a drain has in hand over the latest endpoint controller: the time in which requests that
# are under way when a replica leaves the rotation come to their end, and what a busy machine adds.
MARGIN = 2.0
# A container's time for its own stop, after the drain.
STOP_TIME = 10.0


def milliseconds(seconds):
    return f"{round(seconds * 1000)}ms"


class Variant:
    def __init__(self, name, castoff, drain, longest_drain):
        self.name = name
        self.is_castoff = castoff is not None
        self.wrapper = [castoff, "--"] if castoff else ["tini", "--"]
        self.variables = {
            "CASTOFF_GRACE_PERIOD": milliseconds(longest_drain + STOP_TIME),
            "CASTOFF_KILL_RESERVE": "1s",
            **drain,
        } if castoff else {}

    def signal_for(self, server):
        """What the platform sends: an init that only forwards needs the image's own signal."""
        return "SIGTERM" if self.is_castoff else server.stop_signal

    def variables_for(self, server):
        if not self.is_castoff:
            return {}
        return {**self.variables, "CASTOFF_STOP_SIGNAL": server.stop_signal}

    def refusal(self):
        """Why this castoff does not start with these settings, or None."""
        if not self.is_castoff:
            return None
        answer = subprocess.run([self.wrapper[0], "--print-config"], env=self.variables, text=True,
                                stdin=subprocess.DEVNULL, capture_output=True, timeout=10)
        return None if answer.returncode == 0 else answer.stderr.strip()


def make(castoff, lags):
    """All variants, for an endpoint controller that is as late as `lags` say."""
    # The load balancer is told no later than this after the signal.
    latest = max(lags) + MARGIN
    longest = latest + MARGIN
    fixed = {"CASTOFF_DRAIN_DELAY": milliseconds(latest)}
    adaptive = {"CASTOFF_DRAIN_DELAY": "1s", "CASTOFF_DRAIN_QUIET": "1s",
                "CASTOFF_DRAIN_MAX": milliseconds(longest)}
    return {
        variant.name: variant
        for variant in (
            Variant("tini", None, {}, 0),
            Variant("fixed", castoff, fixed, latest),
            Variant("adaptive", castoff, adaptive, longest),
        )
    }
