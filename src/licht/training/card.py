"""The model card: what a model was trained on, how long, on what, and how good it measurably is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from licht.model.variants import Kind
from licht.training.build import text_config, transformer_config
from licht.training.config import Recipe, Source
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
    Kind.KV: "step-distilled: four steps, no guidance; references are cached",
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
    sources = dict.fromkeys(stream.source for stream in recipe.data.streams)
    rows = sum(stream.rows for stream in recipe.data.streams)
    shown = ", ".join(f"{width}x{height}" for width, height in facts.described["trained_sizes"])
    networks = recipe.networks
    blocks = f"{sizes.depth} double + {sizes.depth_single_blocks} single blocks"
    states = ", ".join(map(str, text.layers))
    widths = "-".join(map(str, networks.vae_channels))
    done = ", ".join(_CAN[source] for source in sources)
    table = {
        "kind": _WHAT[kind],
        "transformer": f"{blocks}, width {sizes.hidden_size}, {sizes.parameters / 1e6:.1f} M parameters",
        "text tower": f"Qwen3 architecture, width {text.tower.hidden_size}, states {states}, {text.length} tokens",
        "autoencoder": f"FLUX.2 structure, widths {widths}, {networks.z_channels} latent channels",
        "data": f"{rows:,} rendered rows (seed {recipe.data.seed}): {done}",
        "sizes": f"{shown} px; others are drawn at the nearest of these and enlarged",
        "recipe": _legs(trained),
        "trained on": f"{recipe.hardware}, {_minutes(trained)}",
        **_others(facts.account),
        "stored in": facts.stored,
    }
    lines = ["| | |", "| --- | --- |", *(f"| {name} | {value} |" for name, value in table.items())]
    return "\n".join([*_HEAD, *lines, "", *measured_lines(facts.figures), *_LIMITS]) + "\n"


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


_HEAD = [
    "---",
    "license: apache-2.0",
    "---",
    "",
    "A very small FLUX.2 in the diffusers layout, trained from nothing by Licht on pictures that Licht renders.",
    "",
]
_LIMITS = [
    "It knows the rendered world and nothing else: solids and small characters on a studio floor, in the words of",
    "docs/world.md. Anything else in a prompt is ignored or misread. Reference pictures from elsewhere mean little to it.",
]
