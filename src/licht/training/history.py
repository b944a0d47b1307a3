"""Where trained weights come from: a run, the run that it started from, and so on; model folders keep their own."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

from licht.core.errors import InvalidSettings
from licht.training.config import Recipe, Task
from licht.training.state import checkpoints, devices_of, newest_checkpoint, read_recipe, seconds_trained, step_of
from licht.training.trained import named_folder

KEPT: Final = "training.json"
"""The file of a model folder that tells how it was trained."""


@dataclass(frozen=True, slots=True)
class Leg:
    """One run of several that were trained one after another: `step` of `steps` steps of `batch` rows.

    What is not on record is None, or an empty `digest`.
    """

    name: str
    step: int | None
    steps: int
    batch: int
    grounded: bool
    seconds: float
    digest: str
    """Of its whole recipe, which tells runs apart."""
    devices: tuple[str, ...] = ()
    """What it was trained on, in words."""


@dataclass(frozen=True, slots=True)
class History:
    """The legs, the newest first. `origin` is the name of what the oldest started from, if nothing is known of it."""

    legs: tuple[Leg, ...]
    origin: str | None = None

    @property
    def seconds(self) -> float:
        """Training in all legs, wall-clock."""
        return sum(leg.seconds for leg in self.legs)


@dataclass(frozen=True, slots=True)
class Account:
    """All of a model's training, where it is known.

    Of its networks, its autoencoder, its teacher, its critic, and those whose learning was carried over to it.
    """

    networks: History
    autoencoder: History | None = None
    teacher: History | None = None
    critic: History | None = None
    carried: History | None = None

    def as_json(self) -> dict[str, Any]:
        """What `training.json` holds."""
        return asdict(self)


def history(run: Path, known: Mapping[str, Path]) -> History:
    """How the newest averages of `run` were trained. `known` are model folders that a recipe may name.

    Raises `InvalidSettings` if `run` holds no checkpoint, or a model folder's own account cannot be read,
    `InvalidCheckpoint`.
    """
    legs: list[Leg] = []
    folder, seen = run, set[Path]()
    while True:
        checkpoint = newest_checkpoint(folder)
        recipe = read_recipe(checkpoint)
        legs.append(_leg(recipe, checkpoint))
        seen.add(folder.resolve())
        if recipe.start_from is None or recipe.task is Task.CRITIC:  # a critic takes the tokenizer alone
            return History(tuple(legs))
        folder = named_folder(recipe.start_from, known)
        if folder.resolve() in seen or not checkpoints(folder):
            kept = account_of(folder)
            part = None if kept is None else kept.autoencoder if recipe.task is Task.AUTOENCODER else kept.networks
            if part is None:
                return History(tuple(legs), folder.name)
            return History((*legs, *part.legs), part.origin)


def _leg(recipe: Recipe, checkpoint: Path) -> Leg:
    optim = recipe.optim
    return Leg(
        name=recipe.name,
        step=step_of(checkpoint),
        steps=optim.steps,
        batch=optim.batch,
        grounded=bool(recipe.flow.grounded),
        seconds=seconds_trained(checkpoint),
        digest=sha256(recipe.as_json().encode()).hexdigest()[:16],
        devices=devices_of(checkpoint),
    )


def account_of(folder: Path) -> Account | None:
    """What a model folder tells of its training; None if it tells nothing. Raises `InvalidSettings` for nonsense."""
    path = folder / KEPT
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text("utf-8"))
        others = {name: None if part is None else _history(part) for name, part in data.items() if name != "networks"}
        return Account(_history(data["networks"]), **others)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidSettings(f"{path} tells no history of training ({error!r}); remove it") from error


def _history(data: Mapping[str, Any]) -> History:
    legs = (Leg(**{**leg, "devices": tuple(leg.get("devices", ()))}) for leg in data["legs"])
    return History(tuple(legs), data["origin"])
