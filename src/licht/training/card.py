"""The model card: what a model was trained on, how long, on what, and how good it measurably is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from licht.model.variants import Kind
from licht.training.build import text_config, transformer_config
from licht.training.config import DataConfig, Recipe, Source
from licht.training.history import Account, History, Leg


@dataclass(frozen=True, slots=True)
class Figures:
    """What `licht eval SUITE --json` printed: rows of (value, low, high) by name, each over `n` pictures.

    `counts` has the rows that tell over how many they are themselves; files did not always.
    """

    suite: str
    n: int
    rows: Mapping[str, tuple[float, float, float]]
    counts: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, data: Mapping[str, Any]) -> "Figures":
        """From the JSON object. Raises `KeyError` or `TypeError` for another one."""
        # a figure that could not be measured has no numbers
        known = {name: row for name, row in data["rows"].items() if row["value"] is not None}
        return cls(
            data["suite"],
            data["n"],
            {name: (row["value"], row["low"], row["high"]) for name, row in known.items()},
            {name: row["n"] for name, row in known.items() if "n" in row},
        )


_WHAT: Mapping[Kind, str] = {
    Kind.BASE: "the undistilled model: classifier-free guidance, two passes a step",
    Kind.DEV: "guidance-distilled: one pass a step, the scale is an input",
    Kind.KV: "step-distilled: {steps}, no guidance; references are cached",
}
_CAN = {
    Source.PICTURE: "pictures from a text",
    Source.EDIT: "edits of one picture",
    Source.TASK: "pictures from several references",
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What a card tells of a model besides its sizes."""

    described: Mapping[str, Any]
    """Its `licht.json`."""
    recipe: Recipe
    """Of the newest of its runs."""
    account: Account
    figures: tuple[Figures, ...] = ()
    stored: str = "bfloat16"


def model_card(kind: Kind, facts: Facts) -> str:
    """README.md of a model folder."""
    recipe, trained = facts.recipe, facts.account.networks
    sizes = transformer_config(recipe.networks, kind is Kind.DEV)
    text = text_config(recipe.networks)
    shown = ", ".join(f"{width}x{height}" for width, height in facts.described["trained_sizes"])
    networks = recipe.networks
    blocks = f"{sizes.depth} double + {sizes.depth_single_blocks} single blocks"
    states = ", ".join(map(str, text.layers))
    widths = "-".join(map(str, networks.vae_channels))
    steps = recipe.distil.steps
    table = {
        "kind": _WHAT[kind].format(steps="one step" if steps == 1 else f"{steps} steps"),
        "transformer": f"{blocks}, width {sizes.hidden_size}, {sizes.parameters / 1e6:.1f} M parameters",
        "text tower": f"Qwen3 architecture, width {text.tower.hidden_size}, states {states}, {text.length} tokens",
        "autoencoder": f"FLUX.2 structure, widths {widths}, {networks.z_channels} latent channels",
        "data": _data(recipe.data) + (", in the last of its runs" if len(trained.legs) > 1 or trained.origin else ""),
        "sizes": f"{shown} px; others are drawn at the nearest of these and enlarged",
        "recipe": _legs(trained),
        "trained on": f"{_devices(trained) or recipe.hardware}, {_minutes(trained)}",
        **_others(facts.account),
        "stored in": facts.stored,
    }
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in table.items())]
    own = any(stream.source is Source.FOLDER for stream in recipe.data.streams)
    head, limits = (_OWN_HEAD, _OWN_LIMITS) if own else (_HEAD, _LIMITS)
    # what was learned from somebody's pictures is theirs to license
    front = ["---", f"license: {'unknown' if own else 'apache-2.0'}", "---", "", head, ""]
    return "\n".join([*front, *lines, "", *measured_lines(facts.figures), *limits]) + "\n"


def _data(data: DataConfig) -> str:
    """What was seen: rows of the world, and those of folders, whose number is 0 where it was not kept."""
    rendered = [stream for stream in data.streams if stream.source is not Source.FOLDER]
    own = [stream for stream in data.streams if stream.source is Source.FOLDER]
    told = []
    if rendered:
        done = ", ".join(dict.fromkeys(_CAN[stream.source] for stream in rendered))
        told.append(f"{sum(stream.rows for stream in rendered):,} rendered rows (seed {data.seed}): {done}")
    if own:
        rows = sum(stream.rows for stream in own)
        told.append(f"{rows:,} rows of folders of pictures" if rows else "folders of pictures")
    return "; ".join(told)


def _devices(trained: History) -> str:
    """What it was trained on; nothing where that was not kept of every run."""
    kept = all(leg.devices for leg in trained.legs)
    return ", ".join(dict.fromkeys(name for leg in trained.legs for name in leg.devices)) if kept else ""


def _legs(trained: History) -> str:
    told = [_steps(leg) for leg in trained.legs]
    if trained.origin is not None:
        told.append(f"`{trained.origin}` as it was then")
    return "; started from ".join(told)


def _steps(leg: Leg) -> str:
    grounded = ", grounded" if leg.grounded else ""
    done = "some" if leg.step is None else f"{leg.step:,}"
    return f"`{leg.name}`, {done} of {leg.steps:,} steps of {leg.batch} rows{grounded}"


def _others(account: Account) -> dict[str, str]:
    """Rows about what else was trained for the model."""
    own = account.networks
    found = _beside("teacher", account.teacher, own) | _beside("carried over", account.carried, own)
    if account.critic is not None:
        found["critic"] = f"{_legs(account.critic)}; {_minutes(account.critic)} more"
    if account.autoencoder is not None:
        found["autoencoder's training"] = _minutes(account.autoencoder)
    return found


def _beside(name: str, other: History | None, own: History) -> dict[str, str]:
    """The row about what was trained for another model alone; none if that is a part of the model's own training."""
    if other is None:
        return {}
    shared = any(leg in own.legs for leg in other.legs)
    legs = tuple(leg for leg in other.legs if leg not in own.legs)
    if not legs:
        return {}
    # what both started from is told of the model itself
    alone = History(legs, None if shared else other.origin)
    told = f"{_legs(alone)}; {_minutes(alone)} more"
    return {name: told + ("; started from the same run" if shared else "")}


def _minutes(trained: History) -> str:
    parts = " + ".join(f"{leg.seconds / 60:,.0f}" for leg in reversed(trained.legs))
    before = f", after those of `{trained.origin}`" if trained.origin is not None else ""
    return f"{trained.seconds / 60:,.0f} minutes" + (f" ({parts})" if len(trained.legs) > 1 else "") + before


def measured_lines(figures: tuple[Figures, ...]) -> list[str]:
    """The card's table of figures, line by line."""
    if not figures:
        return ["No figures were given when this card was written.", ""]
    lines = ["| suite | row | value | 95 % interval | n |", "| --- | --- | --- | --- | --- |"]
    for suite in figures:
        for name, (value, low, high) in suite.rows.items():
            count = suite.counts.get(name, suite.n)
            lines.append(f"| {suite.suite} | {name} | {value:.4g} | {low:.4g} to {high:.4g} | {count} |")
    return ["Measured on held-out prompts with `licht eval` (see docs/training.md):", "", *lines, ""]


_HEAD = "A very small FLUX.2 in the diffusers layout, trained from nothing by Licht on pictures that Licht renders."
_OWN_HEAD = "A very small FLUX.2 in the diffusers layout, trained by Licht."
_OWN_LIMITS = [
    "It knows the rendered world of docs/world.md and the pictures that it was shown, and little else.",
]
_LIMITS = [
    "It knows the rendered world and nothing else: solids and small characters on a studio floor, in the words of",
    "docs/world.md. Anything else in a prompt is ignored or misread. Reference pictures from elsewhere mean little to it.",
]
