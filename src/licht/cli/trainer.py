"""Training on a machine that has torch, numpy, safetensors, tokenizers and Pillow, and nothing else.

`python -m licht.cli.trainer RECIPE --minutes 9` does what `licht train RECIPE --minutes 9` does, which calls this.
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from licht.evaluation.judge_training import Softening
    from licht.model.autoencoder import Autoencoder
    from licht.training.config import Recipe
    from licht.training.loop import Rank, Report, TrainingTask

_EVERY_S = 5.0
"""Preparation tells how far it is so often."""


@dataclass(frozen=True, slots=True)
class News:
    """How far a run is: a line, and the part of `total` that is done, if there is something to count."""

    line: str
    done: int = 0
    total: int = 0
    passing: bool = True
    """Whether the next news makes it old."""


Tell = Callable[[News], None]


class OutOfTime(Exception):
    """The minutes are over before all data are prepared."""


@dataclass(frozen=True, slots=True)
class Order:
    """Where a recipe is followed, and for how many minutes in all, those of preparing data included.

    Raises `InvalidSettings` where a folder is a file.
    """

    run: Path
    data: Path
    minutes: float
    device: str = "auto"
    tensorboard: bool = False

    def __post_init__(self) -> None:
        """Look before anything is written."""
        from licht.core.errors import InvalidSettings

        for name, folder in (("run", self.run), ("data", self.data)):
            if folder.exists() and not folder.is_dir():
                raise InvalidSettings(f"{folder} is a file; name a folder for --{name}", field=name)


def settled_recipe(name: str, changes: Sequence[str]) -> "Recipe":
    """The recipe of a name or a JSON file, changed by FIELD=VALUE. Raises `InvalidSettings`."""
    from licht.training.checks import check
    from licht.training.config import override

    pairs = [change.partition("=") for change in changes]
    return check(override(_recipe(name), {field: value for field, _, value in pairs}))


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


def follow(recipe: "Recipe", order: Order, tell: Tell) -> str | None:
    """Prepare what is missing and train; returns where the run stands, None in all processes but the first.

    Raises `InvalidSettings` for minutes that are no number of them, and what preparing and training raise.
    """
    from licht.core.errors import InvalidSettings
    from licht.training.loop import all_have, distributed, first_alone, refuse_uneven, train
    from licht.training.tensorboard import open_tensorboard

    if not 0 <= order.minutes < math.inf:
        raise InvalidSettings(f"minutes are {order.minutes}; expected a number from 0", field="minutes")
    deadline = time.monotonic() + 60 * order.minutes
    with distributed() as rank:
        refuse_uneven(recipe, rank)
        first = not rank.index
        told_at = -_EVERY_S

        def preparing(what: str, done: int, total: int) -> None:
            nonlocal told_at
            now = time.monotonic()
            if done < total and now > deadline:
                raise OutOfTime
            if not first or (0 < done < total and now - told_at < _EVERY_S):
                return
            told_at = now
            line = f"preparing {what}: {done:,} of {total:,}" if total else what
            tell(News(line, done, total, passing=bool(total)))

        def training(report: "Report") -> None:
            if first:
                line = f"{_standing(report)}, {report.pictures_per_s:.1f} pictures/s"
                tell(News(line, report.step, report.steps))

        def assembled() -> "TrainingTask | None":
            with suppress(OutOfTime):
                return _assemble(recipe, order.run, order.data, place, preparing)
            return None

        watch = open_tensorboard(order.run) if order.tensorboard and first else None
        place = _device(order.device, rank)
        task = first_alone(rank, assembled)
        if not all_have(rank, task is not None) or task is None:
            return "data are prepared in part; call again to go on" if first else None
        left_s = max(0.0, deadline - time.monotonic())
        report = train(task, recipe, order.run, left_s / 60, training, watch)
    return _standing(report) if first else None


def _standing(report: "Report") -> str:
    # a call that takes no step has no loss to tell
    loss = "" if math.isnan(report.loss) else f", loss {report.loss:.4f}"
    return f"step {report.step:,} of {report.steps:,}{loss}"


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
        return assemble_judge(recipe, data, place, preparing, _softening(autoencoder))
    return assemble(recipe, run, data, place, built_in(), write_sheet, preparing)


def _softening(autoencoder: "Autoencoder | None") -> "Softening | None":
    """What passes pictures through the autoencoder that a judge's recipe names, if it names one."""
    from licht.evaluation.decoded import decoded
    from licht.evaluation.judge_training import Softening
    from licht.training.files import weights_digest

    if autoencoder is None:
        return None
    return Softening(partial(decoded, autoencoder), weights_digest(autoencoder))


def main(arguments: Sequence[str]) -> int:
    """Follow a recipe; returns the exit code. Options mean what those of `licht train` mean."""
    import argparse

    from licht.core.errors import InvalidSettings, LichtError
    from licht.training.state import refuse_other_recipe

    parser = argparse.ArgumentParser("python -m licht.cli.trainer", description="Train a model by a recipe.")
    parser.add_argument("recipe", help="a recipe's name or JSON file")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all, preparing data included (default: 60)")
    parser.add_argument("--run", type=Path, help="folder of the run (default: runs/RECIPE)")
    parser.add_argument("--data", type=Path, help="folder of prepared data (default: RUN/data)")
    parser.add_argument("--set", dest="changes", action="append", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--device", default="auto")
    given = parser.parse_args(arguments)
    try:
        recipe = settled_recipe(given.recipe, given.changes)
        if any(stream.folder is not None for stream in recipe.data.streams):
            raise InvalidSettings("folders of pictures are screened first: use `licht train`", field="data.streams")
        run = given.run or Path("runs") / recipe.name
        refuse_other_recipe(run, recipe)
        order = Order(run, given.data or run / "data", given.minutes, given.device)
        report = follow(recipe, order, lambda news: print(news.line, file=sys.stderr, flush=True))
    except LichtError as error:
        print(f"error: {error.message}", file=sys.stderr)
        return error.exit_code
    if report is not None:
        print(f"{run}: {report}", file=sys.stderr)
        print(run)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
