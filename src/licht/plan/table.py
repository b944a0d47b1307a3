"""Plans for people and for programs, and how memory is written."""

import re
from collections.abc import Sequence
from typing import Any, Final

from licht.core.errors import InvalidRequest
from licht.plan.plan import Plan, Residency

_UNITS: Final = {
    "": 1,
    "B": 1,
    "K": 2**10,
    "M": 2**20,
    "G": 2**30,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "KIB": 2**10,
    "MIB": 2**20,
    "GIB": 2**30,
}
_MEANINGS: Final = {
    "resident": "everything is loaded at once and stays",
    "in turn": "what a stage needs is loaded for it and released after it",
    "streamed": "two blocks of a network are on the device at a time; the others wait in memory or on disk",
    "decoder in bands": "pictures are encoded and decoded some rows at a time, without seams",
}
"""What the words of a setup's label mean."""
_MEMORY: Final = re.compile(r"\s*(\d{1,15}(?:\.\d{1,3})?)\s*([A-Za-z]{0,3})\s*")


def parse_memory(text: str) -> int:
    """Bytes of "12GiB", "16GB" or a plain number. Raises `InvalidRequest`."""
    match = _MEMORY.fullmatch(text)
    if match is None or match[2].upper() not in _UNITS or float(match[1]) == 0:
        raise InvalidRequest(f"memory {text!r} is no amount; use for example 12GiB, 16GB or 500MB", field="memory")
    return int(float(match[1]) * _UNITS[match[2].upper()])


def gib(memory_bytes: int) -> str:
    """Bytes as people read them."""
    return f"{memory_bytes / 2**30:.1f} GiB"


def duration(seconds: float) -> str:
    """Seconds as people read them."""
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def lines(plan: Plan, others: Sequence[Plan]) -> list[str]:
    """A plan as a table with a verdict, and the nearest alternatives."""
    request = plan.request
    what = f"{plan.model}: {request.num} x {request.size}"
    what += f", {request.images} reference{'s' if request.images > 1 else ''}" if request.images else ""
    rows = [("stage", "on the device", "weights", "work", "together", "time")]
    for stage in plan.stages:
        weights = gib(sum(stage.parts.values()))
        on_device = ", ".join(stage.parts)
        rows.append(
            (stage.name, on_device, weights, gib(stage.work_bytes), gib(stage.peak_bytes), duration(stage.seconds))
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    table = [
        "  ".join(
            cell.ljust(w) if n < 2 else cell.rjust(w) for n, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    out = [f"{what} ({plan.setup.label})", *_verdict(plan)]
    out += ["", *(line.rstrip() for line in table), ""]
    out += [f"{word}: {meaning}" for word, meaning in _MEANINGS.items() if word in plan.setup.label]
    if others:
        out += ["", "alternatives that fit:" if not plan.fits else "other ways:"]
        out += [f"  {_short(plan, other)}" for other in others]
    elif not plan.fits:
        out += ["", "no format, no size and no streaming makes it fit; use a smaller model or more memory"]
    return out


def _verdict(plan: Plan) -> list[str]:
    """What somebody wants to know first: whether it fits, how long it takes, how much there is to keep."""
    machine = plan.machine
    peak, room = gib(plan.peak_bytes), gib(machine.memory_bytes)
    rates = "rates measured on this machine" if machine.measured else "rates are assumed; --calibrate measures them"
    if plan.fits:
        fits = f"fits: at most {peak} of {room} are in use at a time"
    else:
        fits = f"does NOT fit: {peak} are needed at a time, there are {room}"
    weights = f"all weights together: {gib(plan.weights_bytes)}"
    if plan.setup.residency is Residency.STREAMED:
        weights += "; where main memory cannot hold them, every step waits for the disk"
    return [fits, f"takes about {duration(plan.seconds)} on {machine.name}; {rates}", weights]


def _short(plan: Plan, other: Plan) -> str:
    size = f" at {other.request.size}" if other.request.size != plan.request.size else ""
    option = f" (--quant {other.setup.quant})" if other.setup.quant != plan.setup.quant else ""
    return f"{other.setup.label}{size}{option}: peak {gib(other.peak_bytes)}, about {duration(other.seconds)}"


def as_json(plan: Plan, others: Sequence[Plan]) -> dict[str, Any]:
    """The same for programs."""
    return {**_one(plan), "alternatives": [_one(other) for other in others]}


def _one(plan: Plan) -> dict[str, Any]:
    return {
        "model": plan.model,
        "size": [plan.request.size.width, plan.request.size.height],
        "images": plan.request.images,
        "num": plan.request.num,
        "format": plan.setup.form if plan.setup.form != "none" else plan.setup.dtype,
        "dtype": plan.setup.dtype,
        "residency": plan.setup.residency.value,
        "banded": plan.setup.banded,
        "memory_bytes": plan.machine.memory_bytes,
        "peak_bytes": plan.peak_bytes,
        "weights_bytes": plan.weights_bytes,
        "fits": plan.fits,
        "seconds": round(plan.seconds, 3),
        "rates_measured": plan.machine.measured,
        "stages": [
            {
                "stage": stage.name,
                "parts_bytes": dict(stage.parts),
                "work_bytes": stage.work_bytes,
                "peak_bytes": stage.peak_bytes,
                "seconds": round(stage.seconds, 3),
            }
            for stage in plan.stages
        ],
    }
