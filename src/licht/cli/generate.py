"""`licht generate`: one prompt, some references, one picture or several."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from licht.core.request import ImageRequest
    from licht.generate import Model, Result


def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    images: Annotated[
        list[Path] | None, typer.Option("-i", "--image", help="A reference picture; repeat for several, in order.")
    ] = None,
    model: Annotated[str, typer.Option("--model", "-m", help="A model's name, folder or file.")] = "nano",
    variant: Annotated[
        str | None, typer.Option(help="What kind the model is, where it does not say: klein, base, dev or kv.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 16.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture (default: random).")] = None,
    steps: Annotated[int | None, typer.Option(help="Denoising steps, 1 to 50 (default: the model's).")] = None,
    guidance: Annotated[float | None, typer.Option(help="Guidance scale (default: the model's).")] = None,
    num: Annotated[int, typer.Option("--num", "-n", help="Number of pictures, with consecutive seeds.")] = 1,
    native_only: Annotated[
        bool, typer.Option("--native-only", help="Refuse sizes beyond those the model was trained on.")
    ] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    quant: Annotated[
        str, typer.Option(help="Quantise the large matrices while they are read: none, fp8, int8, q4 or nvfp4.")
    ] = "none",
    ignore_plan: Annotated[
        bool, typer.Option("--ignore-plan", help="Draw even if it is planned not to fit into memory.")
    ] = False,
    vae: Annotated[Path | None, typer.Option(help="Autoencoder for a transformer in a single file.")] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Text encoder folder for a single file.")] = None,
    lora: Annotated[
        list[str] | None, typer.Option("--lora", metavar="FILE[:STRENGTH]", help="A LoRA file; repeat for several.")
    ] = None,
    partial_loras: Annotated[
        bool, typer.Option("--allow-partial-lora", help="Use the keys of a LoRA that fit where others do not.")
    ] = False,
    policy: Annotated[str, typer.Option(help="off, default or strict.")] = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .png, .jpg or .webp (default: a free name).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the paths.")] = False,
) -> None:
    """Draw PROMPT, with or without reference pictures; prints the path of each picture on stdout."""
    from licht import load
    from licht.core.errors import DoesNotFit
    from licht.core.request import ImageRequest
    from licht.core.sizes import parse_size
    from licht.generate import lora_from, reference_from, seeds_from

    request = ImageRequest(
        prompt=prompt,
        seeds=seeds_from(seed, num),
        references=tuple(reference_from(path, n) for n, path in enumerate(images or [], start=1)),
        size=parse_size(size) if size is not None else None,
        steps=steps,
        guidance=guidance,
        native_only=native_only,
        loras=tuple(lora_from(text, partial_loras) for text in lora or []),
    )
    paths = _output_paths(output, request.seeds, overwrite)
    loaded = load(
        model,
        variant=variant,
        device=device,
        dtype=dtype,
        quant=quant,
        ignore_plan=ignore_plan,
        policy=policy,
        autoencoder=vae,
        text_encoder=text_encoder,
    )
    try:
        report = _draw(loaded, request, paths, overwrite)
    except DoesNotFit as error:
        typer.echo("\n".join((*error.table, "")), err=True)
        raise
    if as_json:
        typer.echo(json.dumps(report))
        return
    for note in report["notes"]:
        typer.echo(note, err=True)
    for warning in report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    for image in report["images"]:
        typer.echo(os.fsencode(image["path"]))


def _output_paths(output: Path | None, seeds: tuple[int, ...], overwrite: bool) -> list[Path]:
    """Where each picture goes, checked before any work. Several pictures are numbered from 1."""
    from licht.safety.policy import check_output, format_of

    if output is None:
        paths = [_free_name(Path(f"licht-{seed}.png")) for seed in seeds]
    elif len(seeds) == 1:
        paths = [output]
    else:
        format_of(output)
        paths = [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(seeds) + 1)]
    for path in paths:
        check_output(path, overwrite)
    return paths


def _free_name(path: Path) -> Path:
    """`path`, or the first of its numbered siblings that does not exist."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _draw(model: "Model", request: "ImageRequest", paths: list[Path], overwrite: bool) -> dict[str, Any]:
    """Draw with a progress bar; every picture is on disk as soon as it is finished."""
    from licht.cli.progress import ProgressBar
    from licht.core.request import Preview, Progress
    from licht.engine.engine import Stopwatch
    from licht.safety.policy import format_of

    watch, results, left = Stopwatch(), [], list(paths)
    with ProgressBar(len(request.seeds)) as bar:
        for event in model.stream(request, format_of(paths[0])):
            if isinstance(event, Progress):
                watch.see(event)
                bar.show(event)
            elif not isinstance(event, Preview):
                path = event.save(left.pop(0), overwrite)
                results.append((path, event))
    return _report(model, results, watch.seconds)


def _report(model: "Model", results: "list[tuple[Path, Result]]", stages_s: dict[str, float]) -> dict[str, Any]:
    from licht.engine.memory import peak_memory_bytes

    _, first = results[0]
    return {
        "model": model.name,
        "images": [
            {
                "path": str(path),
                "seed": result.seed,
                "width": result.width,
                "height": result.height,
                "native_size": [result.native_size.width, result.native_size.height],
            }
            for path, result in results
        ],
        "steps": first.steps,
        "guidance": first.guidance,
        "stages_s": stages_s,
        "peak_memory_bytes": peak_memory_bytes(model.engine.placement.device),
        "notes": list(first.notes),
        "warnings": list(first.warnings),
    }
