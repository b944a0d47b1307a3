"""`licht plan`: what will be in memory and how long it takes, before anything runs."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licht.cli import options as o

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from licht.engine.calibrate import Calibration, Rates
    from licht.model.variants import Variant

DOES_NOT_FIT = 3
"""Exit code for a request that no plan makes room for."""
_FORMATS = ("none", "fp8", "int8", "q4", "nvfp4")
_DTYPES = ("float32", "bfloat16")


def plan(
    model: Annotated[
        str, typer.Argument(help="A model's name, folder or file; official models need not be installed.")
    ],
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels (default: the model's).")] = None,
    images: Annotated[int, typer.Option(help="Number of reference pictures.", min=0, max=10)] = 0,
    num: Annotated[int, typer.Option("--num", "-n", help="Number of pictures.", min=1, max=64)] = 1,
    steps: Annotated[int | None, typer.Option(help="Denoising steps (default: the model's).", min=1, max=50)] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale (default: the model's).")] = None,
    quant: Annotated[str, typer.Option(help="Format of the large matrices: none, fp8, int8, q4 or nvfp4.")] = "none",
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "bfloat16",
    memory: Annotated[
        str | None, typer.Option(help="Memory to plan for, such as 12GiB (default: what is free on the device).")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps; with --memory also gpu.")] = "auto",
    lora: o.Loras = None,
    partial_loras: o.PartialLoras = False,
    calibrate: Annotated[bool, typer.Option("--calibrate", help="Measure this machine's rates first.")] = False,
    variant: Annotated[
        str | None, typer.Option(help="What kind the model is, where it does not say: klein, base, dev or kv.")
    ] = None,
    vae: o.Vae = None,
    text_encoder: o.TextEncoder = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Print the plan for a request. Exits with 0 if some plan fits, with 3 if none does."""
    from dataclasses import replace

    from licht.core.errors import InvalidRequest
    from licht.core.sizes import parse_size
    from licht.plan import table
    from licht.plan.plan import CPU, GPU, alternatives, choose
    from licht.plan.work import Request

    if quant not in _FORMATS:
        raise InvalidRequest(f"quant {quant!r} is unknown; use one of {', '.join(_FORMATS)}", field="quant")
    if dtype not in _DTYPES:
        raise InvalidRequest(f"dtype {dtype!r} is unknown; use {' or '.join(_DTYPES)}", field="dtype")
    found, stored, stored_tower = _variant_of(model, variant, vae, text_encoder)
    request = Request(parse_size(size) if size else found.default_size, images, num, steps, guidance)
    if memory is not None and device in ("auto", "cpu", "gpu") and not calibrate:
        base = CPU if device == "cpu" else GPU
        machine = replace(base, memory_bytes=table.parse_memory(memory))
    else:
        from licht.engine import calibrate as rates
        from licht.engine.devices import choose_device
        from licht.engine.memory import free_memory_bytes

        place = choose_device(device)
        measured = _calibrate(rates.calibrate, place) if calibrate else None
        free = table.parse_memory(memory) if memory is not None else free_memory_bytes(place)
        machine = rates.machine(place, free, measured)
    notes: tuple[str, ...] = ()
    if lora:
        lora_bytes, notes = _loras(lora, partial_loras, found, "cpu" if machine.maps_files else "cuda", dtype)
        request = replace(request, lora_bytes=lora_bytes)
    best = choose(found, request, machine, quant, dtype, stored, stored_tower=stored_tower)
    others = alternatives(best, found)
    if as_json:
        typer.echo(json.dumps({**table.as_json(best, others), "loras": notes}))
    else:
        typer.echo("\n".join([*notes, *table.lines(best, others)]))
    if not best.fits and not others:
        raise typer.Exit(DOES_NOT_FIT)


def _calibrate(measure: "Callable[[torch.device], Calibration]", place: "torch.device") -> "Rates | None":
    """What was measured; without it plans go by stated defaults, which is said."""
    from licht.core.errors import NotAvailable

    try:
        found = measure(place)
    except NotAvailable as error:
        typer.echo(f"warning: {error.message}", err=True)
        return None
    if not found.kept:
        typer.echo("warning: there is no place to keep what was measured; it serves this plan only", err=True)
    return found.rates


def _loras(
    names: list[str], allow_partial: bool, variant: "Variant", device: str, dtype: str
) -> tuple[int, tuple[str, ...]]:
    """What LoRA files take beside the transformer, and how many of their keys fit it. Raises `InvalidCheckpoint`."""
    import torch

    from licht.engine.loras import LoraShelf
    from licht.generate import lora_from

    uses = [lora_from(text, allow_partial) for text in names]
    shelf = LoraShelf(variant.transformer)
    notes, warnings = shelf.read(uses)
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return shelf.memory_bytes(uses, torch.device(device), known[dtype]), notes + warnings


def _variant_of(
    model: str, kind: str | None, vae: Path | None, text_encoder: Path | None
) -> "tuple[Variant, str, str]":
    """The variant, and the formats that its transformer and tower are stored in. Official names need no files, and no torch."""
    from licht.core.errors import UnknownModel
    from licht.model.variants import VARIANTS

    name = model.lower().removeprefix("flux.2-")
    try:
        if name in VARIANTS and kind is None and vae is None and text_encoder is None:
            return VARIANTS[name], "none", "none"
        from licht.checkpoint.catalog import find_model
        from licht.checkpoint.packed import stored_format

        files = find_model(model, kind, vae, text_encoder)
    except UnknownModel:
        if name in VARIANTS:
            return VARIANTS[name], "none", "none"
        raise
    return files.variant, stored_format(files.transformer), stored_format(files.tower)
