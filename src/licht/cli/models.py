"""`licht models`: which models there are and which are here; fetching official ones, naming one's own."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from licht.checkpoint.hub import Preflight
    from licht.model.variants import Variant

models = typer.Typer(
    help="List models, fetch official ones, and give names to those that lie elsewhere.", invoke_without_command=True
)


@models.callback()
def _list(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Without a verb: list the models, with licence, size, source and where they are."""
    if context.invoked_subcommand is not None:
        return
    from licht.checkpoint.catalog import models_folder

    rows = [*_built_in(), *_official(), *_own()]
    if as_json:
        typer.echo(json.dumps({"folder": str(models_folder()), "models": rows}))
        return
    typer.echo(f"{'name':<18}{'licence':<22}{'size':>9}  {'presence':<14}source")
    for row in rows:
        size = "" if row["size_bytes"] is None else _size(row["size_bytes"])
        typer.echo(f"{row['name']:<18}{row['licence']:<22}{size:>9}  {row['presence']:<14}{row['source']}")
    typer.echo(f"models folder: {models_folder()}", err=True)


@models.command("get")
def get(
    name: Annotated[str, typer.Argument(help="An official model, such as klein-4b.")],
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="You have read the model's licence and agree.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be fetched.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the path.")] = False,
) -> None:
    """Download a model from the Hugging Face hub. What a broken download has left is not fetched again."""
    from licht.checkpoint.catalog import models_folder
    from licht.checkpoint.hub import check_licence, check_room, preflight

    planned = preflight(name, models_folder())
    if not as_json:
        typer.echo("\n".join(_described(planned)), err=True)
    if not dry_run:
        check_licence(planned, accept_licence)
        check_room(planned)
        _download(planned)
    if as_json:
        report = {
            "name": planned.name,
            "repository": planned.repository,
            "revision": planned.revision,
            "licence": planned.licence,
            "gated": planned.gated,
            "size_bytes": planned.size_bytes,
            "missing_bytes": planned.missing_bytes,
            "free_bytes": planned.free_bytes,
            "path": None if dry_run else str(planned.folder),
        }
        typer.echo(json.dumps(report))
    elif not dry_run:
        typer.echo(planned.folder)


@models.command("add")
def add(
    name: Annotated[str, typer.Argument(help="How the model is to be called.")],
    path: Annotated[Path, typer.Argument(help="Its folder, or the file of its transformer.")],
    variant: Annotated[
        str | None, typer.Option(help="Its kind, where it does not say: klein, base, dev or kv.")
    ] = None,
    vae: Annotated[Path | None, typer.Option(help="Autoencoder for a transformer in a single file.")] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Text encoder folder for a single file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an entry of that name.")] = False,
) -> None:
    """Give a model on this disk a name, without copying it. It is opened once, to see that it can be used."""
    from licht.checkpoint.assets import built_in
    from licht.checkpoint.catalog import find_model, models_folder
    from licht.checkpoint.registry import Registered, register
    from licht.core.errors import InvalidRequest

    if name in built_in():
        raise InvalidRequest(f"{name} is built in; choose another name", field="name")
    absolute = path.expanduser().absolute()
    parts = [part.expanduser().absolute() if part is not None else None for part in (vae, text_encoder)]
    found = find_model(str(absolute), variant, *parts)
    entry = Registered(path=absolute, variant=variant, vae=parts[0], text_encoder=parts[1])
    register(models_folder(), name, entry, overwrite)
    typer.echo(
        f"{name} is {absolute} ({found.variant.kind.value}, {found.variant.transformer.parameters:,} parameters)"
    )


@models.command("remove")
def remove(name: Annotated[str, typer.Argument(help="A name that `licht models add` has given.")]) -> None:
    """Forget a name. The model's own files stay where they are."""
    from licht.checkpoint.catalog import models_folder
    from licht.checkpoint.registry import unregister

    unregister(models_folder(), name)


def _built_in() -> list[dict[str, Any]]:
    from licht.checkpoint.assets import built_in

    return [
        _row(name, "Apache-2.0", _bytes_of(folder), "built in", "part of Licht") for name, folder in built_in().items()
    ]


def _official() -> list[dict[str, Any]]:
    """The official models, here or not."""
    from licht.checkpoint.catalog import models_folder
    from licht.model.variants import VARIANTS

    rows = []
    for name, variant in VARIANTS.items():
        here = models_folder() / name
        present = here.is_dir()
        size_bytes = _bytes_of(here) if present else _expected_bytes(variant)
        rows.append(_row(name, variant.licence, size_bytes, "here" if present else "not here", str(variant.repository)))
    return rows


def _expected_bytes(variant: "Variant") -> int:
    """Roughly what a download takes: all weights in bfloat16, with every layer of the language model."""
    from dataclasses import replace

    from licht.plan.sizes import autoencoder_weights, tower_bytes, transformer_bytes

    whole = replace(variant.text, layers=(variant.text.tower.num_layers,))
    return (
        transformer_bytes(variant.transformer, "bfloat16", "none")
        + tower_bytes(whole, "bfloat16", "none")
        + 2 * autoencoder_weights(variant.autoencoder)
    )


def _own() -> list[dict[str, Any]]:
    """Folders that were put into the models folder, and registered names."""
    from licht.checkpoint.catalog import models_folder
    from licht.checkpoint.registry import registered
    from licht.model.variants import VARIANTS

    folder = models_folder()
    put = sorted(path for path in folder.glob("[!.]*") if path.is_dir() and path.name not in VARIANTS)
    rows = [_row(path.name, "its own", _bytes_of(path), "here", str(path)) for path in put]
    for name, entry in registered(folder).items():
        there = entry.path.exists()
        size_bytes = _bytes_of(entry.path) if there else None
        rows.append(_row(name, "its own", size_bytes, "registered" if there else "MISSING", str(entry.path)))
    return rows


def _row(name: str, licence: str, size_bytes: int | None, presence: str, source: str) -> dict[str, Any]:
    return {"name": name, "licence": licence, "size_bytes": size_bytes, "presence": presence, "source": source}


def _bytes_of(path: Path) -> int:
    if path.is_file():
        return path.stat().st_size
    return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())


def _described(planned: "Preflight") -> list[str]:
    from licht.checkpoint.hub import gigabytes

    declared = f" (the repository says: {planned.declared_licence})" if planned.declared_licence else ""
    return [
        f"repository  {planned.repository} at {planned.revision[:12]}",
        f"licence     {planned.licence}{declared}",
        f"gated       {'yes: its terms must be accepted on its page' if planned.gated else 'no'}",
        f"size        {gigabytes(planned.size_bytes)}, {gigabytes(planned.missing_bytes)} still to fetch",
        f"free disk   {gigabytes(planned.free_bytes)} in {planned.folder.parent}",
    ]


def _download(planned: "Preflight") -> None:
    """Fetch with a progress bar, where someone can see it."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    from licht.checkpoint.hub import download

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal) as bars:
        tasks = {file.path: bars.add_task(file.path, total=file.size_bytes) for file in planned.files}
        download(planned, lambda path, size_bytes: bars.update(tasks[path], completed=size_bytes))


def _size(size_bytes: int) -> str:
    from licht.checkpoint.hub import gigabytes

    return gigabytes(size_bytes)
