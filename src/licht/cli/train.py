"""`licht train`: follow a recipe for some minutes; call it again to go on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from licht.cli.trainer import News, Order
    from licht.training.config import Recipe


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or JSON file; `licht train list` names them all.")],
    minutes: Annotated[
        float, typer.Option(help="Stop after so many, preparing data included; the same command goes on.")
    ] = 60.0,
    run: Annotated[Path | None, typer.Option(help="Folder of the run (default: runs/RECIPE).")] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of prepared data (default: RUN/data).")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="FIELD=VALUE, such as optim.batch=64; repeat for several.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    show: Annotated[bool, typer.Option("--show", help="Print the recipe as JSON and do nothing.")] = False,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write logs for TensorBoard as well.")] = False,
    policy: Annotated[str, typer.Option(help="How folders of pictures are screened first: default, strict, off.")] = (
        "default"
    ),
) -> None:
    """Train a model by RECIPE. Data are prepared first; everything goes on where it was interrupted."""
    from licht.cli.trainer import Order, settled_recipe
    from licht.recipes import RECIPES
    from licht.training.state import refuse_other_recipe

    if recipe == "list":
        for name, function in RECIPES.items():
            typer.echo(f"{name:20s} {(function.__doc__ or '').splitlines()[0]}")
        return
    settled = settled_recipe(recipe, changes or [])
    if show:
        typer.echo(settled.as_json())
        return
    folder = run or Path("runs") / settled.name
    # before any data are touched: a run that cannot go on leaves them as they are
    refuse_other_recipe(folder, settled)
    _screen(settled, policy)
    _follow(settled, Order(folder, data or folder / "data", minutes, device, tensorboard))


def _screen(recipe: "Recipe", policy_name: str) -> None:
    """Refuse to learn from what the door would refuse, before anything is prepared. Raises `InvalidSettings`."""
    import os

    from licht.safety.folders import require_clean
    from licht.safety.policy import Level, parse_policy
    from licht.training.folder import readable

    folders = dict.fromkeys(stream.folder for stream in recipe.data.streams if stream.folder is not None)
    # of several processes one is enough: the others wait for the data that it prepares
    if not folders or os.environ.get("RANK", "0") != "0":
        return
    policy = parse_policy(policy_name, make_keys=False)
    for folder in folders:
        path = Path(folder).expanduser()
        if policy.level is not Level.OFF and path.is_dir():
            require_clean(path, policy, readable)


def _follow(recipe: "Recipe", order: "Order") -> None:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeRemainingColumn

    from licht.cli.trainer import follow

    console = Console(stderr=True)
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bars:
        bar = bars.add_task("starting", total=None)
        counted = 0

        def tell(news: "News") -> None:
            nonlocal counted
            if news.total != counted:  # another thing is counted from here on
                bars.reset(bar, total=news.total or None, completed=news.done)
                counted = news.total
            bars.update(bar, description=news.line, completed=news.done)
            if not news.passing or not console.is_terminal:
                console.print(news.line, highlight=False, markup=False, soft_wrap=True)

        report = follow(recipe, order, tell)
    if report is not None:
        typer.echo(f"{order.run}: {report}", err=True)
        typer.echo(str(order.run))
