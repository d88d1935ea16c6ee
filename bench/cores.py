"""Pin wrk to one core and the measured service to the other cores.

Without pinning, wrk and a server share a core in one round and not in the next: ratios on Granian then vary
by a sixth from round to round, and by 2 % with pinning. With one core only, or without taskset, the
scheduler decides.
"""

import os
import shutil

_cores = sorted(os.sched_getaffinity(0)) if shutil.which("taskset") else []


def for_wrk(command: list[str]) -> list[str]:
    """Return the command line that runs wrk on wrk's core."""
    return _on(_cores[-1:], command)


def for_service(command: list[str]) -> list[str]:
    """Return the command line that runs a service on the other cores."""
    return _on(_cores[:-1], command)


def _on(cores: list[int], command: list[str]) -> list[str]:
    if len(_cores) < 2:  # no core to separate
        return command
    return ["taskset", "--cpu-list", ",".join(map(str, cores)), *command]
