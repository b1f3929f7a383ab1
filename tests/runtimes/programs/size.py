"""What CPython makes of the limits, and pools that are as wide as it says."""
import concurrent.futures
import os

print("cpu_count", os.cpu_count())
if hasattr(os, "process_cpu_count"):
    print("process_cpu_count", os.process_cpu_count())
print("affinity", len(os.sched_getaffinity(0)))
with concurrent.futures.ThreadPoolExecutor() as pool:
    # As the library counts: four more than it believes to have CPUs.
    print("pool", pool._max_workers - 4)
