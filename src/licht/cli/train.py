"""`licht train`: follow a recipe for some minutes; call it again to go on."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from licht.evaluation.judge_training import Soften
    from licht.model.autoencoder import Autoencoder
    from licht.training.config import Recipe
    from licht.training.loop import Rank, TrainingTask


def train(
    recipe: Annotated[str, typer.Argument(help="A recipe's name or JSON file; `licht train list` names them all.")],
    minutes: Annotated[float, typer.Option(help="Stop after this many minutes; the run can be gone on with.")] = 60.0,
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
    from licht.recipes import RECIPES
    from licht.training.checks import check
    from licht.training.config import override
    from licht.training.state import refuse_other_recipe

    if recipe == "list":
        for name, function in RECIPES.items():
            typer.echo(f"{name:20s} {(function.__doc__ or '').splitlines()[0]}")
        return
    pairs = [change.partition("=") for change in changes or []]
    settled = check(override(_recipe(recipe), {field: value for field, _, value in pairs}))
    if show:
        typer.echo(settled.as_json())
        return
    folder = run or Path("runs") / settled.name
    # before any data are touched: a run that cannot go on leaves them as they are
    refuse_other_recipe(folder, settled)
    _screen(settled, policy)
    _follow(settled, folder, data or folder / "data", minutes, device, tensorboard)


def _recipe(name: str) -> "Recipe":
    """The recipe of a name or a file."""
    from licht.core.errors import InvalidSettings
    from licht.recipes import RECIPES
    from licht.training.config import recipe_from_json

    if name in RECIPES:
        return RECIPES[name]()
    try:
        is_file = Path(name).is_file()
        text = Path(name).read_text("utf-8") if is_file else ""
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"the recipe {name[:100]!r} cannot be read ({error})", field="recipe") from error
    if not is_file:
        known = ", ".join(RECIPES)
        raise InvalidSettings(f"recipe {name!r} is unknown; name a JSON file, or one of {known}", field="recipe")
    return recipe_from_json(text)


def _screen(recipe: "Recipe", policy_name: str) -> None:
    """Refuse to learn from what the door would refuse, before anything is prepared. Raises `InvalidSettings`."""
    import os

    from licht.safety.folders import require_clean
    from licht.safety.policy import Level, parse_policy

    folders = dict.fromkeys(stream.folder for stream in recipe.data.streams if stream.folder is not None)
    # of several processes one is enough: the others wait for the data that it prepares
    if not folders or os.environ.get("RANK", "0") != "0":
        return
    policy = parse_policy(policy_name, make_keys=False)
    for folder in folders:
        path = Path(folder).expanduser()
        if policy.level is not Level.OFF and path.is_dir():
            require_clean(path, policy)


def _follow(recipe: "Recipe", run: Path, data: Path, minutes: float, device: str, tensorboard: bool) -> None:
    from rich.console import Console

    from licht.training.loop import Report, distributed, first_alone
    from licht.training.loop import train as follow
    from licht.training.tensorboard import open_tensorboard

    console = Console(stderr=True)
    status = console.status("starting")

    def preparing(what: str, done: int, total: int) -> None:
        if total:
            status.update(f"preparing {what}: {done:,} of {total:,}")
        else:
            console.print(what, highlight=False)

    def training(report: Report) -> None:
        line = (
            f"step {report.step:,} of {report.steps:,}, loss {report.loss:.4f}, {report.pictures_per_s:.1f} pictures/s"
        )
        status.update(line)
        if not console.is_terminal:
            console.print(line)

    with status, distributed() as rank:
        console.quiet = rank.index > 0
        watch = open_tensorboard(run) if tensorboard and not rank.index else None
        place = _device(device, rank)
        task = first_alone(rank, lambda: _assemble(recipe, run, data, place, preparing))
        report = follow(task, recipe, run, minutes, training, watch)
    if not rank.index:
        typer.echo(f"{run}: step {report.step:,} of {report.steps:,}, loss {report.loss:.4f}", err=True)
        typer.echo(str(run))


def _device(name: str, rank: "Rank") -> "torch.device":
    """This process's device: with several, each has the GPU of its own number."""
    import os

    import torch

    from licht.engine.devices import choose_device

    chosen = choose_device(name)
    if rank.count > 1 and chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(chosen)
    return chosen


def _assemble(
    recipe: "Recipe", run: Path, data: Path, place: "torch.device", preparing: "Callable[[str, int, int], None]"
) -> "TrainingTask":
    from licht.checkpoint.assets import built_in
    from licht.evaluation.judge_training import assemble_judge
    from licht.evaluation.sheets import write_sheet
    from licht.training.assemble import assemble, find_autoencoder
    from licht.training.config import Task

    if recipe.task is Task.JUDGE:
        autoencoder = None if recipe.autoencoder_from is None else find_autoencoder(recipe, built_in())
        _describe_for_judge(recipe, data, autoencoder)
        return assemble_judge(recipe, data, place, preparing, _softener(autoencoder))
    return assemble(recipe, run, data, place, built_in(), write_sheet, preparing)


def _describe_for_judge(recipe: "Recipe", data: Path, autoencoder: "Autoencoder | None") -> None:
    """Refuse pictures that were prepared for another task or softened otherwise. Raises `InvalidSettings`."""
    from licht.training.files import weights_digest
    from licht.training.pictures import PictureStore

    softened = "none" if autoencoder is None else f"a third, by {weights_digest(autoencoder)}"
    shown = {"shows": "scenes of the judge", "seed": recipe.data.seed, "softened": softened}
    # opening them compares, or describes what is new; the judge opens them again
    PictureStore(data / "pictures.bin", recipe.data.pictures, (128, 128), shown)


def _softener(autoencoder: "Autoencoder | None") -> "Soften | None":
    """What passes pictures through the autoencoder that a judge's recipe names, if it names one."""
    from licht.evaluation.decoded import decoded

    return None if autoencoder is None else lambda pictures: decoded(autoencoder, pictures)
