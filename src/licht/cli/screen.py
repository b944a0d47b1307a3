"""`licht screen`: the door's filters over a folder of training data, or over the prompt filter's own test set."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def screen(
    folder: Annotated[Path | None, typer.Argument(help="Pictures, with captions in .txt or .jsonl files.")] = None,
    tolerance: Annotated[int, typer.Option(min=0, max=5, help="0 refuses most, 5 least.")] = 2,
    evaluate: Annotated[
        Path | None, typer.Option(help="A file of labelled prompts (JSON lines): prints precision and recall instead.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Screen every picture and caption in FOLDER as requests are screened. Exits with 1 if anything is refused."""
    from licht.core.errors import InvalidRequest

    if evaluate is not None:
        _evaluate(evaluate, as_json)
        return
    if folder is None or not folder.is_dir():
        raise InvalidRequest(f"{folder or 'nothing'} is no folder; name a folder of pictures", field="folder")
    from licht.safety.folders import refused_files, screened_files
    from licht.safety.policy import Level, Policy

    found = refused_files(folder, Policy(Level.DEFAULT, tolerance))
    refused = [{"path": str(each.path), "reason": each.reason} for each in found]
    seen = len(screened_files(folder))
    if as_json:
        typer.echo(json.dumps({"screened": seen, "refused": refused}))
    else:
        for entry in refused:
            typer.echo(f"{entry['path']}: {entry['reason']}")
        typer.echo(f"{seen} files screened, {len(refused)} refused", err=True)
    if refused:
        raise typer.Exit(1)


def _evaluate(path: Path, as_json: bool) -> None:
    from licht.safety.prompt_evaluation import measure, read_cases

    table: dict[str, Any] = measure(read_cases(path))
    if as_json:
        typer.echo(json.dumps(table))
        return
    typer.echo(f"{'category':<24}{'prompts':>8}{'precision':>11}{'recall':>8}   missed, wrongly refused")
    for category, row in table["categories"].items():
        typer.echo(
            f"{category:<24}{row['prompts']:>8}{row['precision']:>11.3f}{row['recall']:>8.3f}"
            f"   {row['missed']}, {row['false']}"
        )
