"""The plan of one request on this device: how it will be run, or a refusal before anything is loaded."""

from dataclasses import replace

import torch

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement
from licht.checkpoint.packed import stored_format
from licht.core.errors import DoesNotFit
from licht.core.sizes import Size
from licht.engine.calibrate import machine
from licht.engine.memory import free_memory_bytes, limit_bytes
from licht.engine.offload import memory_bytes
from licht.engine.settle import Settled
from licht.plan import table
from licht.plan.plan import Plan, alternatives, choose
from licht.plan.work import Request
from licht.quant.linear import QuantisedLinear


def fitting_plan(
    files: ModelFiles, placement: Placement, settled: Settled, batch: int, held_bytes: int, lora_bytes: int
) -> Plan:
    """The fastest plan that fits. `held_bytes` are those of networks that are loaded already and count as free.

    `lora_bytes` are what the request's adapters take beside the transformer.

    Raises `DoesNotFit` with the whole table if there is none.
    """
    request = settled.request
    asked = Request(
        size=settled.native,
        images=len(settled.references),
        num=len(request.seeds),
        steps=settled.steps,
        guidance=settled.guidance,
        reference_size=_largest([picture.size for picture in settled.references]),
        lora_bytes=lora_bytes,
    )
    device = placement.device
    here = machine(device, min(free_memory_bytes(device) + held_bytes, limit_bytes()))
    if device.type != "cuda":
        here = replace(here, streams_quantised=False)
    dtype = str(placement.compute_dtype).removeprefix("torch.")
    quant, stored = placement.quant or "none", stored_format(files.transformer)
    plan = choose(files.variant, asked, here, quant, dtype, stored, batch, stored_format(files.tower))
    if plan.fits:
        return plan
    others = alternatives(plan, files.variant)
    nearest = f"; what fits: {others[0].setup.label} at {others[0].request.size}" if others else ""
    raise DoesNotFit(
        f"{plan.model} at {asked.size} needs {table.gib(plan.peak_bytes)}, {device} has "
        f"{table.gib(here.memory_bytes)} free{nearest}; see licht plan, or overrule it with --ignore-plan",
        tuple(table.lines(plan, others)),
    )


def held_bytes(*networks: torch.nn.Module | None) -> int:
    """Bytes of the weights of networks that are loaded."""
    layers = (layer for network in networks if network is not None for layer in network.modules())
    return sum(layer.memory_bytes if isinstance(layer, QuantisedLinear) else memory_bytes(layer) for layer in layers)


def _largest(sizes: list[Size]) -> Size | None:
    return max(sizes, key=lambda size: size.area_px, default=None)
