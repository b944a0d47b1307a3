"""`licht convert`: a model in another layout or number format."""

import json
from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[str, typer.Argument(metavar="SRC", help="A model's name, folder or file.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must be new or empty.")],
    to: Annotated[str, typer.Option("--to", help="Names of tensors: bfl (official) or diffusers.")] = "bfl",
    quant: Annotated[
        str,
        typer.Option(help="none, fp8, int8, q4, nvfp4, gguf-q8_0, gguf-q5_0 or gguf-q4_0; for transformer and tower."),
    ] = "none",
    variant: Annotated[
        str | None, typer.Option(help="What kind the model is, where it does not say: klein, base, dev or kv.")
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="Autoencoder for a transformer in a single file.")] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Text encoder folder for a single file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the paths.")] = False,
) -> None:
    """Write the model SRC below the folder DST; prints the path of each file on stdout."""
    from licht.checkpoint.catalog import find_model
    from licht.checkpoint.convert import convert as write
    from licht.checkpoint.detect import Layout
    from licht.core.errors import InvalidRequest

    layouts = {"bfl": Layout.OFFICIAL, "diffusers": Layout.DIFFUSERS}
    if to not in layouts:
        raise InvalidRequest(f"the layout {to!r} is unknown; use --to bfl or --to diffusers", field="to")
    files = find_model(source, variant, vae, text_encoder)
    written = write(files, target, layouts[to], quant, lambda place: typer.echo(f"writing {place}", err=True))
    if as_json:
        typer.echo(json.dumps({"files": [{"path": str(one.path), "bytes": one.size_bytes} for one in written]}))
        return
    for one in written:
        typer.echo(f"{one.path}  {one.size_bytes / 1e6:,.1f} MB")
