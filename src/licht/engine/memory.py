"""How much memory was used."""

import resource
import sys

import torch


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that this process held: on the GPU if it draws there, else in RAM."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
