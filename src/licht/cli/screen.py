"""`licht screen`: the door's filters over a folder of training data, or over the prompt filter's own test set."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from licht.safety.policy import Policy

_PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_CAPTIONS = (".txt", ".caption")


def screen(
    folder: Annotated[Path | None, typer.Argument(help="Pictures, with captions in .txt files beside them.")] = None,
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
    from licht.safety.policy import Level, Policy

    refused = list(_refused(folder, Policy(Level.DEFAULT, tolerance)))
    seen = sum(path.suffix.lower() in (*_PICTURES, *_CAPTIONS) for path in folder.rglob("*"))
    if as_json:
        typer.echo(json.dumps({"screened": seen, "refused": refused}))
    else:
        for entry in refused:
            typer.echo(f"{entry['path']}: {entry['reason']}")
        typer.echo(f"{seen} files screened, {len(refused)} refused", err=True)
    if refused:
        raise typer.Exit(1)


def _refused(folder: Path, policy: "Policy") -> list[dict[str, str]]:
    from licht.core.errors import InvalidImage, InvalidPrompt, Refused
    from licht.core.request import ImageRequest
    from licht.safety.images import open_reference
    from licht.safety.policy import admit

    found = []
    for path in sorted(folder.rglob("*")):
        try:
            if path.suffix.lower() in _PICTURES:
                admit(ImageRequest("", (0,), (open_reference(path),)), policy)
            elif path.suffix.lower() in _CAPTIONS:
                admit(ImageRequest(path.read_text(encoding="utf-8", errors="replace").strip(), (0,)), policy)
        except (Refused, InvalidImage, InvalidPrompt) as error:
            found.append({"path": str(path), "reason": error.message})
    return found


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
