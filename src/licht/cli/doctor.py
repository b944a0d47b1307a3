"""`licht doctor`: is this installation sound, and is a model faithful to the reference."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from licht.checkpoint.folder import ModelFiles
    from licht.checkpoint.load import Placement
    from licht.evaluation.measured import Measured
    from licht.evaluation.weights import CheckedFile

_PACKAGES = ("torch", "safetensors", "tokenizers", "pillow", "diffusers", "transformers")
_PROMPT = "a large shiny red sphere on a gray floor, light from the left"


def doctor(
    golden: Annotated[
        str | None,
        typer.Option(
            "--golden",
            metavar="MODEL",
            help="Compare a model with diffusers, component by component, and hash its files.",
        ),
    ] = None,
    variant: Annotated[
        str | None, typer.Option(help="What kind the model is, where it does not say: klein, base, dev or kv.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")] = "auto",
    dtype: Annotated[str, typer.Option(help="auto, float32 or bfloat16.")] = "auto",
    vae: Annotated[Path | None, typer.Option(help="Autoencoder for a transformer in a single file.")] = None,
    text_encoder: Annotated[Path | None, typer.Option(help="Text encoder folder for a single file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report instead of tables.")] = False,
) -> None:
    """Check this installation, or how far a model is from the reference. Exits with 1 if something is wrong."""
    if golden is None:
        report = _installation(device, dtype)
        sound = not report["problems"]
        if not as_json:
            _show_installation(report)
    else:
        report = _compare(golden, variant, (device, dtype), (vae, text_encoder), show=not as_json)
        sound = report["faithful"]
    if as_json:
        typer.echo(json.dumps(report))
    if not sound:
        raise typer.Exit(1)


def _installation(device: str, dtype: str) -> dict[str, Any]:
    """Versions, devices, models, and whether the built-in model draws."""
    from licht.checkpoint.assets import built_in
    from licht.checkpoint.catalog import DEFAULT_MODEL, models_folder
    from licht.core.errors import LichtError

    folder = models_folder()
    installed = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
    drawing, problems = None, []
    try:
        drawing = _draw(DEFAULT_MODEL, device, dtype)
    except LichtError as error:
        problems.append(f"the built-in model does not draw: {error.message}")
    return {
        "versions": _versions(),
        "devices": _devices(),
        "models": {"folder": str(folder), "built_in": sorted(built_in()), "installed": installed},
        "drawing": drawing,
        "problems": problems,
    }


def _draw(model: str, device: str, dtype: str) -> dict[str, Any]:
    """Load a model and draw one small picture; nothing is written."""
    import time

    from licht import load

    started = time.perf_counter()
    loaded = load(model, device=device, dtype=dtype)
    (result,) = loaded.generate(_PROMPT, size=(64, 64), seed=0, steps=8)
    placement = loaded.engine.placement
    return {
        "model": loaded.name,
        "size": [result.width, result.height],
        "steps": result.steps,
        "device": str(placement.device),
        "dtype": str(placement.dtype).removeprefix("torch."),
        "seconds": round(time.perf_counter() - started, 3),
    }


def _versions() -> dict[str, str | None]:
    """Name -> version; None for what is not installed."""
    import platform
    from importlib import metadata

    from licht import __version__

    found: dict[str, str | None] = {"licht": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
    return found


def _devices() -> list[dict[str, Any]]:
    """What can be drawn on, with its memory where that is known."""
    import os

    import torch

    devices: list[dict[str, Any]] = [
        {"device": "cpu", "name": f"{os.cpu_count()} processors, {torch.get_num_threads()} used", "memory_bytes": None}
    ]
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        devices.append({"device": f"cuda:{number}", "name": properties.name, "memory_bytes": properties.total_memory})
    if torch.backends.mps.is_available():
        devices.append({"device": "mps", "name": "Apple GPU", "memory_bytes": None})
    return devices


def _show_installation(report: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, version in report["versions"].items():
        table.add_row(name, version or "not installed (only needed for --golden)")
    for device in report["devices"]:
        memory = device["memory_bytes"]
        table.add_row(device["device"], device["name"] + (f", {memory / 1e9:.0f} GB" if memory else ""))
    models = report["models"]
    table.add_row("built-in models", ", ".join(models["built_in"]))
    table.add_row("models folder", models["folder"])
    table.add_row("models in it", ", ".join(models["installed"]) or "none")
    if report["drawing"]:
        drawn = report["drawing"]
        size = "x".join(str(side) for side in drawn["size"])
        where = f"{drawn['device']} in {drawn['dtype']}"
        table.add_row(
            "drawing", f"{drawn['model']} drew {size} in {drawn['steps']} steps on {where}: {drawn['seconds']} s"
        )
    console.print(table)
    for problem in report["problems"]:
        console.print(f"[red]problem:[/red] {problem}", highlight=False)
    if not report["problems"]:
        console.print("[green]everything works[/green]")


def _compare(
    model: str,
    variant: str | None,
    choice: tuple[str, str],
    parts: tuple[Path | None, Path | None],
    show: bool,
) -> dict[str, Any]:
    """Hash a model's files and compare it with the reference; each table is printed when it is complete."""
    from rich.console import Console

    from licht.checkpoint.catalog import find_model
    from licht.engine.engine import Choice
    from licht.evaluation.golden import versions
    from licht.evaluation.weights import check_files

    versions_compared = versions()
    files = find_model(model, variant, *parts)
    placement = Choice(*choice).placement(files.variant)
    console, progress = Console(quiet=not show), Console(stderr=True, quiet=not show)
    with progress.status("hashing files"):
        checked = list(check_files(files))
    _show_files(console, checked)
    rows = _measure(files, placement, progress)
    _show_rows(console, rows)
    outside = sum(not row.within for row in rows)
    faithful = outside == 0
    verdict = "[green]faithful[/green]" if faithful else "[red]not faithful[/red]"
    console.print(f"{files.variant.name}: {verdict}, {outside} of {len(rows)} differences are outside their tolerance")
    return {
        "model": files.variant.name,
        "device": str(placement.device),
        "dtype": str(placement.dtype).removeprefix("torch."),
        "versions": versions_compared,
        "files": [{"path": str(file.path), "sha256": file.sha256, "known_as": file.known_as} for file in checked],
        "rows": [_row_report(row) for row in rows],
        "faithful": faithful,
    }


def _measure(files: "ModelFiles", placement: "Placement", progress: "Console") -> "list[Measured]":
    from licht.evaluation.compare import compare_model

    rows = []
    with progress.status("comparing with diffusers") as status:
        for row in compare_model(files, placement):
            rows.append(row)
            status.update(f"comparing with diffusers: {row.case}, {row.component}")
    return rows


def _row_report(row: "Measured") -> dict[str, Any]:
    """A row for programs: JSON has no word for what is not finite, so that is null."""
    import math

    return {
        "variant": row.variant,
        "case": row.case,
        "component": row.component,
        "error": row.error if math.isfinite(row.error) else None,
        "tolerance": row.tolerance,
        "within": row.within,
    }


def _show_files(console: "Console", files: "list[CheckedFile]") -> None:
    for file in files:
        # whole lines, which a terminal may wrap: a hash is there to be compared
        line = f"{file.sha256}  {file.path}  ({file.known_as or 'hash not known'})"
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def _show_rows(console: "Console", rows: "list[Measured]") -> None:
    from rich.table import Table

    table = Table("case", "component", "difference", "allowed", "")
    for row in rows:
        mark = "[green]ok[/green]" if row.within else "[red]OUTSIDE[/red]"
        table.add_row(row.case, row.component, f"{row.error:.1e}", f"{row.tolerance:.1e}", mark)
    console.print(table)
