"""The table at the end, and whether what it shows is what was to be proven."""
from statistics import mean

COLUMNS = ("variant", "server", "stops", "keep-alive", "failed", "close", "failed",
           "proxy errors", "mean lag", "mean stop", "max stop")


def row(variant, name, results):
    # A short run may have no stop of some server.
    times = [seconds for result in results for seconds in result.stop_seconds] or [0]
    lags = [seconds for result in results for seconds in result.lags] or [0]
    return (
        variant, name, sum(len(result.stop_seconds) for result in results),
        sum(result.keep_alive.requests for result in results),
        sum(result.keep_alive.failed for result in results),
        sum(result.close.requests for result in results),
        sum(result.close.failed for result in results),
        sum(result.proxy_failures for result in results),
        *(f"{value:.2f} s" for value in (mean(lags), mean(times), max(times))))


def table(outcome):
    rows = [COLUMNS]
    for variant, results in outcome.items():
        rows += [row(variant, result.server, [result]) for result in results]
        rows.append(row(variant, "all", results))
    widths = [max(len(str(cells[i])) for cells in rows) for i in range(len(COLUMNS))]
    lines = []
    for cells in rows:
        words = [str(cell).ljust(width) if i < 2 else str(cell).rjust(width)
                 for i, (cell, width) in enumerate(zip(cells, widths))]
        lines.append("  ".join(words).rstrip())
    return "\n".join(lines)


def verdict(outcome, variants, stops):
    """What is wrong with the outcome, in words; nothing when it is as it should be."""
    wrong = []
    for name, results in outcome.items():
        if sum(len(result.stop_seconds) for result in results) != stops:
            wrong.append(f"{name}: not all of the {stops} stops came to an end")
        for result in results:
            what = f"{name}, {result.server}"
            wrong += [f"{what}: {fault}" for fault in result.faults]
            for kind, counts in (("keep-alive", result.keep_alive), ("close", result.close)):
                # A client that stands still loses nothing.
                if counts.requests < 10 * max(1, len(result.stop_seconds)):
                    wrong.append(f"{what}: only {counts.requests} requests ({kind})")
                if variants[name].is_castoff and counts.failed:
                    wrong.append(f"{what}: {counts.failed} failed requests ({kind}): {counts.errors}")
            if variants[name].is_castoff and result.proxy_failures:
                wrong.append(f"{what}: HAProxy counts {result.proxy_failures} errors")
            # One that leaves the rotation at once and ends in order may lose nothing.
            if not variants[name].is_castoff and not result.failed and max(result.lags, default=0) > 0:
                wrong.append(f"{what}: nothing failed, so this run proves nothing about it")
        if not variants[name].is_castoff and not any(result.failed for result in results):
            wrong.append(f"{name}: nothing failed at all, so this run proves nothing")
    return wrong
