"""How much memory was used."""

import os
import resource
import sys
from pathlib import Path

import torch

from licht.plan.table import parse_memory

LIMIT = "LICHT_MEMORY"
"""An environment variable: plan as if no more than this were free."""


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process held: on the GPU if it draws there, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory_bytes(device: torch.device) -> int:
    """What can still be used: on the GPU if `device` is one, else in RAM; at most what `LICHT_MEMORY` says."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
    elif sys.platform.startswith("linux"):
        free = min(_available_bytes(), _left_in_group_bytes())
    else:
        free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(free, limit_bytes())


def limit_bytes() -> int:
    """What `LICHT_MEMORY` allows altogether. Raises `InvalidRequest` if it is set and is no amount of memory."""
    limit = os.environ.get(LIMIT)
    return parse_memory(limit) if limit else sys.maxsize


def _available_bytes() -> int:
    """What Linux says that it can give without swapping."""
    lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))


def _left_in_group_bytes(group: Path = Path("/sys/fs/cgroup")) -> int:
    """What a container may still take; file pages that it holds can be dropped. Unlimited where nothing is said."""
    try:
        most = (group / "memory.max").read_text("ascii").strip()
        if most == "max":
            return sys.maxsize
        taken = int((group / "memory.current").read_text("ascii"))
        counts = dict(line.split() for line in (group / "memory.stat").read_text("ascii").splitlines())
        return max(int(most) - taken + int(counts["inactive_file"]) + int(counts["active_file"]), 0)
    except (OSError, ValueError, KeyError):
        return sys.maxsize
