"""`licht train`: follow a recipe for some minutes; call it again to go on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from licht.training.config import Recipe


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name; `licht train list` names them all.")],
    minutes: Annotated[float, typer.Option(help="Stop after this many minutes; the run can be gone on with.")] = 60.0,
    run: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/RECIPE).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of prepared data (default: RUN/data).")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, such as optim.batch=64; repeat for several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Train a model by RECIPE. Data are prepared first; everything goes on where it was interrupted."""
    from licht.core.errors import InvalidSettings
    from licht.recipes import RECIPES
    from licht.training.config import override

    if recipe == "list":
        for name, function in RECIPES.items():
            typer.echo(f"{name:20s} {(function.__doc__ or '').splitlines()[0]}")
        return
    if recipe not in RECIPES:
        raise InvalidSettings(f"recipe {recipe!r} is unknown; choose one of {', '.join(RECIPES)}", field="recipe")
    pairs = [change.partition("=") for change in changes or []]
    settled = override(RECIPES[recipe](), {field: value for field, _, value in pairs})
    folder = run or Path("runs") / recipe
    _follow(settled, folder, data or folder / "data", minutes, device)


def _follow(recipe: "Recipe", run: Path, data: Path, minutes: float, device: str) -> None:
    from rich.console import Console

    from licht.checkpoint.catalog import built_in
    from licht.engine.engine import choose_device
    from licht.evaluation.judge_training import assemble_judge
    from licht.evaluation.sheets import write_sheet
    from licht.training.assemble import assemble
    from licht.training.config import Task
    from licht.training.loop import Report, TrainingTask
    from licht.training.loop import train as follow

    console = Console(stderr=True)
    status = console.status("starting")

    def preparing(what: str, done: int, total: int) -> None:
        status.update(f"preparing {what}: {done:,} of {total:,}")

    def training(report: Report) -> None:
        line = (
            f"step {report.step:,} of {report.steps:,}, loss {report.loss:.4f}, {report.pictures_per_s:.1f} pictures/s"
        )
        status.update(line)
        if not console.is_terminal:
            console.print(line)

    with status:
        place = choose_device(device)
        if recipe.task is Task.JUDGE:
            task: TrainingTask = assemble_judge(recipe, data, place, preparing)
        else:
            task = assemble(recipe, run, data, place, built_in(), write_sheet, preparing)
        report = follow(task, recipe, run, minutes, training)
    typer.echo(f"{run}: step {report.step:,} of {report.steps:,}, loss {report.loss:.4f}", err=True)
    typer.echo(str(run))
