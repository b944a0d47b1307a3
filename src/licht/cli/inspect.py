"""`licht inspect`: how a picture was made, as its own file tells it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from licht.core.recipe import Recipe, UsedPicture
    from licht.safety.provenance import Reading


def inspect(
    file: Annotated[Path, typer.Argument(help="A PNG, JPEG or WebP file.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show how FILE was made, and whether its signature still covers that. `licht verify` says more about signatures."""
    from licht.files.reading import open_made
    from licht.safety.provenance import read

    data, file_format, picture, recipe = open_made(file)
    reading = read(data, file_format)
    if as_json:
        report: dict[str, Any] = {
            "file": str(file),
            "format": file_format,
            "width": picture.width,
            "height": picture.height,
            "credentials": reading.state,
            "recipe": recipe.model_dump(mode="json") if recipe is not None else None,
        }
        typer.echo(json.dumps(report))
        return
    typer.echo(f"picture     {file_format}, {picture.width}x{picture.height} px")
    for line in _made(recipe) if recipe is not None else ["made        the file does not say how"]:
        typer.echo(line)
    typer.echo(f"signature   {_signature(reading)}")


def _made(recipe: "Recipe") -> list[str]:
    """The recipe in lines."""
    guidance = f", guidance {recipe.guidance:g}" if recipe.guidance is not None else ""
    quant = f", {recipe.quant}" if recipe.quant != "none" else ""
    lines = [
        f"made by     Licht {recipe.version}, model {recipe.model} ({recipe.weights})",
        f"asked for   {recipe.width}x{recipe.height} px, seed {recipe.seed}, {recipe.steps} steps{guidance}",
        f"computed in {recipe.dtype}{quant} on {recipe.device}",
    ]
    lines += [_used(f"image {number}", one) for number, one in enumerate(recipe.references, start=1)]
    lines += [_used("start", recipe.start)] if recipe.start is not None else []
    lines += [f"mask        {recipe.mask[:16]}..."] if recipe.mask is not None else []
    if recipe.extend is not None:
        sides = zip(("left", "top", "right", "bottom"), recipe.extend, strict=True)
        lines.append(f"extended    {', '.join(f'{name} {size_px} px' for name, size_px in sides if size_px)}")
    lines += [f"LoRA        {lora.weights[:23]}..., strength {lora.strength:g}" for lora in recipe.loras]
    lines += [f"finish      {recipe.finish}"] if recipe.finish != "none" else []
    lines.append(f"prompt      {recipe.prompt if recipe.prompt is not None else '(not kept; see --keep-prompt)'}")
    return lines


def _used(name: str, one: "UsedPicture") -> str:
    role = f", {one.role}" if one.role is not None else ""
    strength = f", strength {one.strength:g}" if one.strength != 1 else ""
    return f"{name:<11} {one.sha256[:16]}...{role}{strength}"


def _signature(reading: "Reading") -> str:
    words = {
        "none": "none: nobody vouches for any of this",
        "trusted": "intact",
        "valid": "intact; whether you trust the signer is for `licht verify` to say",
    }
    return words.get(reading.state, "BROKEN: the file was altered after it was signed")
