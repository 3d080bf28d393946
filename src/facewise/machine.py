"""Resources of the machine."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Final

CGROUP: Final = Path("/sys/fs/cgroup")
"""Where Linux mounts control groups; in a container, the container's own."""


def cores() -> int:
    """Cores that this process may use; in a container, maybe fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:
        count = os.cpu_count() or 1
    return min(count, _quota_cores(CGROUP) or count)


def _quota_cores(cgroup: Path) -> int | None:
    """The CPU time that a control group of version 2 or 1 may use, in cores, rounded up; None if it
    has no limit.
    """
    for names in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota_us, period_us = " ".join((cgroup / name).read_text() for name in names).split()
            if int(quota_us) > 0:  # -1 in version 1: no limit
                return math.ceil(int(quota_us) / int(period_us))
        except (OSError, ValueError):  # the other version's, or "max": no limit
            continue
    return None
