"""What every verb that draws has in common: where pictures go, drawing them with a bar, telling about it."""

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    from licht.core.request import ImageRequest, Preview
    from licht.generate import Delivery, Model, Result

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A picture that is on the disk; `prompt` counts the prompts of the command from 0."""

    path: Path
    result: "Result"
    prompt: int = 0


def output_paths(output: Path | None, seeds: Sequence[int], suffix: str, overwrite: bool) -> list[Path]:
    """Where each picture goes, checked before any work. Several pictures are numbered from 1."""
    from licht.safety.policy import check_output, format_of

    if output is None:
        paths: list[Path] = []
        for seed in seeds:
            paths.append(_free_name(Path(f"licht-{seed}{suffix}"), paths))
    elif len(seeds) == 1:
        paths = [output]
    else:
        format_of(output)
        paths = [output.with_stem(f"{output.stem}-{number}") for number in range(1, len(seeds) + 1)]
    for path in paths:
        check_output(path, overwrite)
    return paths


def _free_name(path: Path, taken: Sequence[Path]) -> Path:
    """`path`, or the first of its numbered siblings that neither exists nor is taken already."""
    number, free = 1, path
    while free.exists() or free in taken:
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def preview_folder(folder: Path | None) -> Path | None:
    """The folder for previews, made if it is not there. Raises `InvalidOutput`."""
    from licht.core.errors import InvalidOutput

    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOutput(
            f"{folder} cannot be a folder for previews ({error.strerror}); choose another", field="preview"
        ) from error
    return folder


@dataclass(frozen=True, slots=True)
class Plan:
    """Several requests, drawn one after another: where their pictures go and how they are handed out."""

    requests: Sequence["ImageRequest"]
    paths: Sequence[Path]
    delivery: "Delivery"
    overwrite: bool = False
    previews: Path | None = None

    @property
    def pictures(self) -> int:
        """Number of pictures of all requests."""
        return sum(len(request.seeds) for request in self.requests)


def draw(model: "Model", plan: Plan) -> tuple[list[Drawn], dict[str, float]]:
    """Draw with a progress bar; every picture is on disk as soon as it is finished.

    Nothing is drawn unless every request is good. Returns the pictures and the seconds that each stage took.
    """
    from licht.cli.progress import ProgressBar
    from licht.core.request import Preview, Progress
    from licht.engine.engine import Stopwatch
    from licht.safety.policy import format_of

    for request in plan.requests:
        model.check(request, plan.delivery)
    watch, drawn, left = Stopwatch(), list[Drawn](), list(plan.paths)
    with ProgressBar(plan.pictures) as bar:
        for number, request in enumerate(plan.requests):
            bar.begin(len(drawn))
            for event in model.stream(request, format_of(plan.paths[0]), plan.delivery):
                if isinstance(event, Progress):
                    watch.see(event)
                    bar.show(event)
                elif isinstance(event, Preview):
                    _save_preview(event, plan.previews, left)
                else:
                    drawn.append(Drawn(event.save(left.pop(0), plan.overwrite), event, number))
    return drawn, watch.seconds


def _save_preview(preview: "Preview", folder: Path | None, left: Sequence[Path]) -> None:
    """`left` are the paths of the pictures that are not finished, the next one first."""
    from licht.safety.policy import Released, write

    if folder is None or not left:
        return
    name = f"{left[0].stem}-step-{preview.step:02}-of-{preview.total:02}.png"
    write(Released(preview.file, "PNG"), folder / name, overwrite=True)


def report_of(model: "Model", drawn: Sequence[Drawn], stages_s: dict[str, float]) -> dict[str, Any]:
    """What `--json` prints."""
    from licht.engine.memory import peak_memory_bytes

    first = drawn[0].result
    return {
        "model": model.name,
        "images": [
            {
                "path": str(one.path),
                "seed": one.result.seed,
                "width": one.result.width,
                "height": one.result.height,
                "native_size": [one.result.native_size.width, one.result.native_size.height],
            }
            for one in drawn
        ],
        "steps": first.steps,
        "guidance": first.guidance,
        "stages_s": stages_s,
        "peak_memory_bytes": peak_memory_bytes(model.engine.placement.device),
        "notes": _once(one.result.notes for one in drawn),
        "warnings": _once(one.result.warnings for one in drawn),
    }


def _once(lines: Iterable[Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(line for group in lines for line in group))


def tell(report: dict[str, Any], as_json: bool) -> None:
    """Print a report: paths on stdout, notes and warnings on stderr, or all of it as JSON."""
    if as_json:
        typer.echo(json.dumps(report))
        return
    for note in report["notes"]:
        typer.echo(note, err=True)
    for warning in report["warnings"]:
        typer.echo(f"warning: {warning}", err=True)
    for image in report["images"]:
        typer.echo(os.fsencode(image["path"]))


def with_plan_shown(work: Callable[[], T]) -> T:
    """Run `work`; if it does not fit into the memory, the plan that says why goes to stderr first."""
    from licht.core.errors import DoesNotFit

    try:
        return work()
    except DoesNotFit as error:
        typer.echo("\n".join((*error.table, "")), err=True)
        raise
