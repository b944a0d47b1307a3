"""`licht eval`: how good a model measurably is, on held-out prompts."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from licht.evaluation.reading import Reader
    from licht.evaluation.suites import Draws, Report
    from licht.generate import Model
    from licht.model.autoencoder import Autoencoder
    from licht.training.config import Task

_SHEET_PX = 1100
"""About how wide a contact sheet is: eight pictures of 128 px."""


def evaluate(
    suite: Annotated[
        str, typer.Argument(help="t2i, edit, multiref, text, steps, vae, or judge: how much the judge itself sees.")
    ],
    model: Annotated[str, typer.Option(help="A model's name or folder, or the folder of a training run.")] = "nano",
    n: Annotated[int | None, typer.Option("--n", min=1, help="Pictures a row (default: 500 or 200 by row).")] = None,
    steps: Annotated[int | None, typer.Option(min=1, max=50, help="Steps (default: the model's own).")] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Guidance (default: the model's own).")] = None,
    sheet: Annotated[Path | None, typer.Option(help="Write a contact sheet of successes and failures there.")] = None,
    judge: Annotated[Path | None, typer.Option(help="A judge of your own instead of the one that is shipped.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a contact sheet that exists.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")] = False,
) -> None:
    """Draw held-out prompts of the rendered world with a model, judge the pictures and print figures with intervals."""
    import json

    from rich.console import Console

    from licht.core.errors import InvalidRequest
    from licht.evaluation.judge import Judge
    from licht.evaluation.run import SUITES, run_suite
    from licht.evaluation.suites import Bench, Notebook
    from licht.safety.policy import check_output

    if suite not in SUITES:
        raise InvalidRequest(f"suite {suite!r} is unknown; use one of {', '.join(SUITES)}", field="suite")
    if sheet is not None:
        check_output(sheet, overwrite)
    console = Console(stderr=True)
    reader = _reader(suite, console)
    with console.status("starting") as status, _measured(suite, model, device, guidance) as subject:
        bench = Bench(
            drawer=subject.drawer(steps, guidance),
            judge=None if suite == "vae" else Judge.load(judge),
            reader=reader,
            autoencoder=subject.autoencoder if suite in {"vae", "judge", "edit"} else None,
            at_steps=lambda count: subject.drawer(count, guidance),
            n=n,
            on_progress=lambda done: status.update(f"{done:,} pictures"),
            notebook=Notebook(),
        )
        report = run_suite(suite, bench, subject.name)
    # first of all: hours may have gone into them
    if as_json:
        typer.echo(json.dumps(report.as_json()))
    else:
        _print_table(report)
    if sheet is not None:
        written = _write_sheet(report, sheet)
        told = f"contact sheet: {sheet}" if written else f"the suite {suite} has no pictures to show: no contact sheet"
        console.print(told, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class _Subject:
    """What is measured; an autoencoder alone draws nothing."""

    name: str
    autoencoder: "Autoencoder"
    model: "Model | None" = None

    def drawer(self, steps: int | None, guidance: float | None) -> "Draws | None":
        """What draws in so many steps, None in the model's own."""
        from licht.evaluation.drawing import Drawer, Settings

        return None if self.model is None else Drawer(self.model, Settings(steps, guidance))


@contextmanager
def _measured(suite: str, model: str, device: str, guidance: float | None) -> Iterator[_Subject]:
    """A model by name or folder, the newest averages of a training run; of an autoencoder's run for the suite vae."""
    from licht.core.errors import InvalidRequest
    from licht.training.config import Task
    from licht.training.trained import trained_autoencoder

    run = Path(model).expanduser()
    trains = _trains(run)
    if suite == "vae" and trains is Task.AUTOENCODER:
        yield _Subject(run.resolve().name, trained_autoencoder(run))
        return
    with _opened(model, device, trains) as opened:
        if guidance is not None and not opened.engine.variant.takes_guidance:
            raise InvalidRequest(f"{opened.name} takes no guidance; leave it out", field="guidance")
        yield _Subject(opened.name, opened.engine.autoencoder, opened)


def _reader(suite: str, console: "Console") -> "Reader | None":
    """What reads words where a suite needs it. Edits can be judged without, and it is said that they are."""
    from licht.core.errors import NotAvailable
    from licht.evaluation.reading import open_reader

    if suite not in {"text", "edit"}:
        return None
    try:
        return open_reader()
    except NotAvailable as error:
        if suite == "text":
            raise
        said = f"edits of words are judged by whether they came nearer to the right picture: {error}"
        console.print(said, markup=False, highlight=False, soft_wrap=True)
        return None


def _trains(folder: Path) -> "Task | None":
    """What a run trains. None for a folder that is none."""
    from licht.training.state import checkpoints, read_recipe

    found = checkpoints(folder)
    return read_recipe(found[-1]).task if found else None


@contextmanager
def _opened(model: str, device: str, trains: "Task | None") -> Iterator["Model"]:
    """A model by name or folder; of a training run the newest averages, exported for as long as they are measured."""
    from tempfile import TemporaryDirectory

    from licht import load
    from licht.checkpoint.assets import built_in
    from licht.core.errors import InvalidRequest
    from licht.training.export import KINDS, Release, export_run

    if trains is None:
        yield load(model, device=device, policy="off")
        return
    run = Path(model).expanduser()
    if trains not in KINDS:
        raise InvalidRequest(
            f"{run} has trained {trains}, which draws nothing by itself; name a model's run", field="model"
        )
    with TemporaryDirectory(prefix="licht-eval-") as folder:
        target = Path(folder) / run.resolve().name
        export_run(run, target, built_in(), Release())
        yield load(str(target), device=device, policy="off")


def _write_sheet(report: "Report", path: Path) -> bool:
    """Write the pictures that were kept. False if there are none. Raises `OutputFailed`."""
    import torch

    from licht.core.errors import OutputFailed
    from licht.evaluation.sheets import write_sheet

    pictures, labels = report.sheet()
    if not pictures:
        return False
    height, width = max(one.shape[0] for one in pictures), max(one.shape[1] for one in pictures)
    same = torch.full((len(pictures), height, width, 3), 255, dtype=torch.uint8)
    for cell, one in zip(same, pictures, strict=True):
        cell[: one.shape[0], : one.shape[1]] = one
    try:
        write_sheet(path, same, labels, columns=max(2, _SHEET_PX // width), scale=1)
    except OSError as error:
        raise OutputFailed(f"{path} cannot be written ({error}); make room or choose another place") from error
    return True


def _print_table(report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{report.suite}: {report.model}")
    for name in ("row", "value", "95 % interval", "n"):
        table.add_column(name, justify="left" if name == "row" else "right")
    for name, row in report.rows.items():
        table.add_row(name, f"{row.value:.3f}", f"{row.low:.3f} to {row.high:.3f}", str(row.n))
    Console().print(table)
