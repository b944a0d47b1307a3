"""Where trained weights come from: a run, the run that it started from, and so on."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from licht.training.config import Recipe
from licht.training.state import checkpoints, newest_checkpoint, read_recipe, seconds_trained, step_of
from licht.training.trained import named_folder


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of several that were trained one after another."""

    recipe: Recipe
    step: int
    seconds: float


@dataclass(frozen=True, slots=True)
class History:
    """The legs, the newest first. `origin` is the name of what the oldest started from, if that is no run to be read."""

    legs: tuple[Leg, ...]
    origin: str | None = None

    @property
    def seconds(self) -> float:
        """Training in all legs, wall-clock."""
        return sum(leg.seconds for leg in self.legs)


def history(run: Path, known: Mapping[str, Path]) -> History:
    """How the newest averages of `run` were trained. `known` are model folders that a recipe may name.

    Raises `InvalidSettings` if `run` holds no checkpoint, `InvalidCheckpoint`.
    """
    legs: list[Leg] = []
    folder, seen = run, set[Path]()
    while True:
        checkpoint = newest_checkpoint(folder)
        recipe = read_recipe(checkpoint)
        legs.append(Leg(recipe, step_of(checkpoint), seconds_trained(checkpoint)))
        seen.add(folder.resolve())
        if recipe.start_from is None:
            return History(tuple(legs))
        folder = named_folder(recipe.start_from, known)
        if folder.resolve() in seen or not checkpoints(folder):
            return History(tuple(legs), folder.name)
