"""`licht encode`: a picture as latents, which every model with the same autoencoder understands."""

import json
from pathlib import Path
from typing import Annotated

import typer

from licht.cli import options as o


def encode(
    image: Annotated[Path, typer.Argument(help="A picture file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .safetensors (default: beside the picture).")
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
    """Write the latents of IMAGE. `licht decode` turns them into a picture again."""
    import licht
    from licht.engine.latents import SUFFIX, check_latents_output, write_latents
    from licht.safety.images import open_picture

    target = output or image.with_suffix(SUFFIX)
    check_latents_output(target, overwrite)
    opened = licht.load(
        model,
        variant=variant,
        device=device,
        dtype=dtype,
        policy=policy,
        autoencoder=vae,
        text_encoder=text_encoder,
    )
    latents = opened.encode(open_picture(image))
    write_latents(latents, target, overwrite)
    shape = list(latents.latents_1CHW.shape)
    if as_json:
        report = {"path": str(target), "shape": shape, "size": [latents.size.width, latents.size.height]}
        typer.echo(json.dumps({**report, "autoencoder": latents.space}))
        return
    typer.echo(f"{target}  {latents.size} px as {' x '.join(map(str, shape))}, autoencoder {latents.space[:12]}")
