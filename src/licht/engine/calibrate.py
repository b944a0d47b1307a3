"""How fast this machine is, measured in a second or two and kept for the plans that follow."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import platformdirs
import torch
import torch.nn.functional as F

from licht.plan.plan import CPU, GPU, Machine
from licht.quant.int8 import pack_int8, unpack_int8

_ROWS: Final = 1024
_WIDTH: Final = 3072
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def calibration_file() -> Path:
    """Where measured rates are kept."""
    return platformdirs.user_cache_path("licht") / "calibration.json"


def calibrate(device: torch.device) -> dict[str, float]:
    """Operations a second in each dtype, and weights dequantised a second; kept for `machine`."""
    rates = {}
    for name, dtype in _DTYPES.items():
        x = torch.randn(_ROWS, _WIDTH, device=device).to(dtype)
        weight = torch.randn(4 * _WIDTH, _WIDTH, device=device).to(dtype)
        rates[name] = 2 * x.numel() * weight.shape[0] / _fastest(partial(F.linear, x, weight), device)
    codes, scale = pack_int8(torch.randn(4 * _WIDTH, _WIDTH, device=device))
    rates["dequantised"] = codes.numel() / _fastest(lambda: unpack_int8(codes, scale, torch.bfloat16), device)
    _keep(_key(device), rates)
    return rates


def machine(device: torch.device, memory_bytes: int) -> Machine:
    """This machine with its measured rates, or with stated defaults where nothing was measured."""
    base = replace(GPU if device.type == "cuda" else CPU, name=str(device), memory_bytes=memory_bytes)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        base = replace(base, native=())
    rates = _kept().get(_key(device))
    if rates is None:
        return base
    operations = {name: rates[name] for name in _DTYPES}
    for name, speed in base.operations_per_s.items():
        operations.setdefault(name, speed / base.operations_per_s["bfloat16"] * rates["bfloat16"])
    return replace(base, operations_per_s=operations, dequantised_per_s=rates["dequantised"], measured=True)


def _fastest(work: Callable[[], torch.Tensor], device: torch.device, runs: int = 3) -> float:
    work()
    best = float("inf")
    for _ in range(runs):
        started = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return best


def _key(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{device.type}, {name}, torch {torch.__version__}"


def _kept() -> dict[str, dict[str, float]]:
    """What was measured before; nothing if the file is missing or is not ours."""
    try:
        kept = json.loads(calibration_file().read_text("utf-8"))
        wanted = {*_DTYPES, "dequantised"}
        return {
            str(key): {name: float(rates[name]) for name in wanted}
            for key, rates in kept.items()
            if wanted <= rates.keys() and all(float(rates[name]) > 0 for name in wanted)
        }
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _keep(key: str, rates: dict[str, float]) -> None:
    """Add to the file; without a place to write, the rates serve this run only."""
    path = calibration_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**_kept(), key: rates}, indent=2), "utf-8")
        temporary.replace(path)
    except OSError:
        return
