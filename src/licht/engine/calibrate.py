"""How fast this machine is, measured in a second or two and kept for the plans that follow."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import platformdirs
import torch

from licht.checkpoint.reader import first_line
from licht.core.errors import NotAvailable
from licht.model.positions import image_ids, rotary_table
from licht.model.transformer import SingleStreamBlock
from licht.model.variants import TransformerConfig
from licht.plan.plan import CPU, GPU, Machine
from licht.quant.int8 import Int8Linear
from licht.quant.swap import quantise

_ROWS: Final = 1024
_WIDTH: Final = 1536
_HEAD: Final = 128
_DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DEQUANTISED: Final = "dequantised"
Rates = Mapping[str, float]
"""Operations a second by format, and weights dequantised a second."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """What was measured, and whether it could be kept for later."""

    rates: Rates
    kept: bool


def calibration_file() -> Path:
    """Where measured rates are kept."""
    return platformdirs.user_cache_path("licht") / "calibration.json"


def calibrate(device: torch.device) -> Calibration:
    """Measure a block of a transformer in each format, and keep the rates for `machine`.

    Raises `NotAvailable` if the device cannot do that; plans then go by stated defaults.
    """
    try:
        rates = _measured(device)
    except (RuntimeError, MemoryError) as error:
        raise NotAvailable(f"{device} cannot be measured ({first_line(error)}); plans go by default rates") from error
    return Calibration(rates, _keep(_key(device), rates))


def machine(device: torch.device, memory_bytes: int, rates: Rates | None = None) -> Machine:
    """This machine with its measured rates, or with stated defaults where nothing was measured.

    `rates` are those of a calibration just made; without them, those that were kept.
    """
    base = replace(GPU if device.type == "cuda" else CPU, name=str(device), memory_bytes=memory_bytes)
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < (8, 9):
        base = replace(base, native=())
    if device.type == "cpu":
        base = replace(base, native=("int8",) if _multiplies_int8(device) else ())
    rates = rates or _kept().get(_key(device))
    if rates is None:
        return base
    operations = {name: speed for name, speed in rates.items() if name != _DEQUANTISED}
    for name, speed in base.operations_per_s.items():
        operations.setdefault(name, speed / base.operations_per_s["bfloat16"] * rates["bfloat16"])
    return replace(base, operations_per_s=operations, dequantised_per_s=rates[_DEQUANTISED], measured=True)


def _measured(device: torch.device) -> dict[str, float]:
    heads = max(1, _WIDTH // _HEAD)
    axes = (_WIDTH // heads // 4,) * 4
    config = TransformerConfig(_WIDTH, heads, 0, 1, _WIDTH, guidance_embed=False, axes_dim=axes)
    weights = 4 * _WIDTH**2 + 3 * config.mlp_hidden_size * _WIDTH
    operations = 2.0 * weights * _ROWS + 4.0 * _ROWS**2 * _WIDTH
    table = rotary_table(image_ids((_ROWS // 32, 32)).to(device), config.axes_dim, config.theta)

    def speed(dtype: torch.dtype, form: str | None = None) -> float:
        with torch.device(device):
            block = SingleStreamBlock(config).to(dtype).requires_grad_(False)
            x = torch.randn(1, _ROWS, _WIDTH, dtype=dtype)
        for name in ("linear1", "linear2") if form is not None else ():
            setattr(block, name, quantise(block.get_parameter(f"{name}.weight"), str(form), dtype))
        shift = x[:, :1]
        return operations / _fastest(lambda: block(x, (shift, shift, shift), table, 0), device)

    rates = {name: speed(dtype) for name, dtype in _DTYPES.items()}
    if _multiplies_int8(device):
        rates["int8"] = speed(torch.bfloat16, "int8")
    layer = quantise(torch.randn(4 * _WIDTH, _WIDTH, device=device), "q4", torch.bfloat16)
    rates[_DEQUANTISED] = layer.in_features * layer.out_features / _fastest(lambda: layer.weight, device)
    return rates


def _multiplies_int8(device: torch.device) -> bool:
    return Int8Linear(torch.zeros(16, 16, dtype=torch.int8, device=device), torch.ones(1), torch.bfloat16).fast


@torch.inference_mode()
def _fastest(work: Callable[[], object], device: torch.device, runs: int = 3) -> float:
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
        wanted = {*_DTYPES, _DEQUANTISED}
        found = {str(key): {str(name): float(rate) for name, rate in rates.items()} for key, rates in kept.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
    return {key: rates for key, rates in found.items() if wanted <= rates.keys() and min(rates.values()) > 0}


def _keep(key: str, rates: Rates) -> bool:
    """Add to the file; whether there was a place to write."""
    path = calibration_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps({**_kept(), key: dict(rates)}, indent=2), "utf-8")
        temporary.replace(path)
    except OSError:
        return False
    return True
