"""`licht decode`: the picture of latents, through the same door as every other."""

import json
from pathlib import Path
from typing import Annotated

import typer

from licht.cli import options as o


def decode(
    latents: Annotated[Path, typer.Argument(help="A file that licht encode wrote.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .png, .jpg or .webp (default: beside it).")
    ] = None,
    model: o.ModelName = "nano",
    variant: o.VariantName = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    vae: o.Vae = None,
    text_encoder: o.TextEncoder = None,
    policy: o.PolicyName = "default",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report.")] = False,
) -> None:
    """Write the picture of LATENTS, which must be of this model's autoencoder."""
    import licht
    from licht.engine.latents import read_latents
    from licht.safety.policy import check_output, format_of, write

    target = output or latents.with_suffix(".png")
    check_output(target, overwrite)
    opened = licht.load(
        model,
        variant=variant,
        device=device,
        dtype=dtype,
        policy=policy,
        autoencoder=vae,
        text_encoder=text_encoder,
    )
    read = read_latents(latents)
    write(opened.decode(read, format_of(target)), target, overwrite)
    if as_json:
        typer.echo(json.dumps({"path": str(target), "size": [read.size.width, read.size.height]}))
        return
    typer.echo(f"{target}  {read.size}")
