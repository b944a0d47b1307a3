"""Values of a recipe that cannot mean anything, refused by their field before anything is prepared."""

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import PurePath
from types import MappingProxyType
from typing import Any, Final, cast

from licht.core.errors import InvalidSettings
from licht.training.config import Recipe, Source, Stream, Task
from licht.world.edits import EDIT_KINDS
from licht.world.sample import KINDS
from licht.world.tasks import TASK_KINDS

_ANY: Final = math.inf
_BOUNDS: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        **dict.fromkeys(("seed", "data.seed"), (0, 2**32 - 1)),
        **dict.fromkeys(("checkpoint_minutes", "sample_minutes", "data.pictures"), (0, _ANY)),
        **dict.fromkeys(("optim.steps", "optim.batch"), (1, _ANY)),
        **dict.fromkeys(
            ("optim.adamw_lr", "optim.muon_lr", "optim.weight_decay", "optim.warmup_steps", "optim.critic_rate"),
            (0, _ANY),
        ),
        **dict.fromkeys(("optim.decay_share", "optim.ema"), (0, 1)),
        **dict.fromkeys((f"autoencoder.{name}" for name in ("mse", "l1", "gradient_l1", "kl", "semantic")), (0, _ANY)),
        "autoencoder.noise": (0, _ANY),
        "judge.patterned": (0, 1),
        "polish.tail": (1, _ANY),
        **dict.fromkeys(
            (f"polish.{name}" for name in ("adversarial", "shown", "unlike", "error", "steady")), (0, _ANY)
        ),
        **dict.fromkeys(("flow.caption_dropout", "flow.full_length", "distil.on_policy"), (0, 1)),
        "flow.text_step": (1, _ANY),
        **dict.fromkeys(("flow.self_flow", "flow.grounded", "flow.objects"), (0, _ANY)),
        **dict.fromkeys(
            ("distil.guidance", "distil.reference_guidance", "distil.least_guidance", "distil.most_guidance"), (0, _ANY)
        ),
        **dict.fromkeys(("distil.steps", "distil.substeps"), (1, _ANY)),
        **dict.fromkeys((f"networks.{name}" for name in ("vae_blocks", "vae_groups", "z_channels")), (1, _ANY)),
        **dict.fromkeys((f"networks.{name}" for name in ("hidden_size", "heads", "tower_size")), (1, _ANY)),
        **dict.fromkeys((f"networks.tower_{name}" for name in ("layers", "heads", "kv_heads")), (1, _ANY)),
        **dict.fromkeys(("networks.depth", "networks.depth_single"), (0, _ANY)),
        "networks.text_length": (1, _ANY),
        # ids are kept in 16 bits; the alphabet of bytes and two marks come first
        "networks.vocab_size": (258, 2**16),
    }
)
_POSITIVE: Final = ("optim.clip", "flow.shift")
_STREAMED: Final = (Task.FLOW, Task.GUIDANCE, Task.STEPS, Task.CRITIC, Task.POLISH)
_CARRYING: Final = (Task.FLOW, Task.GUIDANCE, Task.STEPS, Task.POLISH)
"""Tasks whose networks may take over what others have learned."""
_HELD_OUT: Final[Mapping[Task, int]] = MappingProxyType({Task.AUTOENCODER: 256, Task.JUDGE: 512})
"""Pictures that these tasks keep for measuring."""
REFERENCES: Final[Mapping[str, tuple[int, int]]] = MappingProxyType(
    {
        **dict.fromkeys(("subject", "palette", "lettering", "depth", "edges"), (1, 1)),
        **dict.fromkeys(("floor", "lighting"), (1, 2)),
        **dict.fromkeys(("pick", "subjects"), (2, 4)),
        "many": (5, 10),
        "mixed": (2, 5),
    }
)
"""Fewest and most references of each kind of task, as often as a stream needs them."""


def check(recipe: Recipe) -> Recipe:
    """`recipe` itself. Raises `InvalidSettings` that names a field, its value and what is expected."""
    for path, (least, most) in _BOUNDS.items():
        _between(path, _at(recipe, path), least, most)
    for path in _POSITIVE:
        if not _at(recipe, path) > 0:
            raise _wrong(path, _at(recipe, path), "more than 0")
    for number, beta in enumerate(recipe.optim.betas):
        if not 0 <= beta < 1:
            raise _wrong(f"optim.betas[{number}]", beta, "from 0 to less than 1")
    if recipe.distil.least_guidance > recipe.distil.most_guidance:
        raise _wrong("distil.least_guidance", recipe.distil.least_guidance, "at most distil.most_guidance")
    if recipe.autoencoder.decoder_only and recipe.start_from is None:
        raise _wrong("start_from", None, "an autoencoder to go on from, because autoencoder.decoder_only is set")
    if recipe.judge.keep_finder and recipe.start_from is None:
        raise _wrong("start_from", None, "a judge to go on from, because judge.keep_finder is set")
    _check_carry(recipe)
    if not recipe.name.strip():
        raise _wrong("name", recipe.name, "a name")
    _check_networks(recipe)
    _check_pictures(recipe)
    _check_streams(recipe)
    return recipe


def _check_carry(recipe: Recipe) -> None:
    """What is carried over needs both ends of the difference, a model that gets it, and a teacher of its own."""
    ends = {"carry.learned_by": recipe.carry.learned_by, "carry.since": recipe.carry.since}
    named = [path for path, name in ends.items() if name is not None]
    if not named:
        return
    if recipe.task not in _CARRYING:
        raise _wrong(named[0], ends[named[0]], f"null: the networks of {recipe.task} take nothing over")
    wanted = {**ends, "start_from": recipe.start_from}
    if recipe.task in {Task.GUIDANCE, Task.STEPS}:
        # the start is distilled already, or it would not need what is carried over
        wanted["teacher_from"] = recipe.teacher_from
    for path, name in wanted.items():
        if name is None:
            raise _wrong(path, None, f"a run or a model folder, because {named[0]} is set")


def _check_networks(recipe: Recipe) -> None:
    n = recipe.networks
    for path, value, divisor in (
        ("hidden_size", n.hidden_size, "heads"),
        ("tower_size", n.tower_size, "tower_heads"),
        ("tower_heads", n.tower_heads, "tower_kv_heads"),
        *((f"vae_channels[{at}]", each, "vae_groups") for at, each in enumerate(n.vae_channels)),
    ):
        if value < 1 or value % getattr(n, divisor):
            raise _wrong(f"networks.{path}", value, f"a multiple of networks.{divisor}, {getattr(n, divisor)}")
    if not n.vae_channels:
        raise _wrong("networks.vae_channels", n.vae_channels, "at least one number of channels")
    if not n.text_layers or not all(1 <= layer <= n.tower_layers for layer in n.text_layers):
        raise _wrong("networks.text_layers", n.text_layers, f"layers from 1 to networks.tower_layers, {n.tower_layers}")


def _check_pictures(recipe: Recipe) -> None:
    if recipe.task in _HELD_OUT and recipe.data.pictures <= _HELD_OUT[recipe.task]:
        expected = f"more than the {_HELD_OUT[recipe.task]} that are kept for measuring"
        raise _wrong("data.pictures", recipe.data.pictures, expected)
    _sides("data.crop_px", (recipe.data.crop_px,))
    if recipe.data.crop_px > 128:
        raise _wrong("data.crop_px", recipe.data.crop_px, "at most 128, the side of the pictures")


def _check_streams(recipe: Recipe) -> None:
    streams = recipe.data.streams
    if recipe.task not in _STREAMED:
        return
    if not streams:
        raise _wrong("data.streams", streams, f"at least one stream for {recipe.task}")
    for number, stream in enumerate(streams):
        _check_stream(stream, f"data.streams[{number}]")
    name, times = Counter(stream.name for stream in streams).most_common(1)[0]
    if times > 1:
        raise _wrong("data.streams", name, "a name of its own for each stream")
    if not sum(stream.weight for stream in streams):
        raise _wrong("data.streams", 0, "a weight of more than 0 in some stream")


def _check_stream(stream: Stream, path: str) -> None:
    if not stream.name or PurePath(stream.name).name != stream.name or stream.name == "..":
        raise _wrong(f"{path}.name", stream.name, "a name that can be that of a folder")
    _between(f"{path}.weight", stream.weight, 0, _ANY)
    _between(f"{path}.captions", stream.captions, 1, _ANY)
    _between(f"{path}.references", stream.references, 0, 10)
    _sides(f"{path}.size_px", stream.size_px)
    _sides(f"{path}.reference_px", (stream.reference_px,))
    if stream.source is Source.FOLDER:
        if not stream.folder:
            raise _wrong(f"{path}.folder", stream.folder, "the folder of pictures of a stream of source folder")
        _between(f"{path}.rows", stream.rows, 0, _ANY)
        return
    _between(f"{path}.rows", stream.rows, 1, _ANY)
    _between(f"{path}.skip", stream.skip, 0, _ANY)
    if stream.folder is not None:
        raise _wrong(f"{path}.folder", stream.folder, f"null: a stream of source {stream.source} is rendered")
    _check_kinds(stream, path)


def _check_kinds(stream: Stream, path: str) -> None:
    """Kinds that the source has, and the number of references that they come with."""
    known: tuple[str, ...] = {Source.PICTURE: KINDS, Source.EDIT: EDIT_KINDS, Source.TASK: TASK_KINDS}[stream.source]
    if not stream.kinds:
        raise _wrong(f"{path}.kinds", stream.kinds, f"some of {', '.join(known)}")
    for kind in stream.kinds:
        if kind not in known:
            raise _wrong(f"{path}.kinds", kind, f"for source {stream.source} some of {', '.join(known)}")
        usual = (0, 0) if stream.source is Source.PICTURE else (1, 1)
        least, most = REFERENCES[kind] if stream.source is Source.TASK else usual
        if not least <= stream.references <= most:
            count = str(least) if least == most else f"{least} to {most}"
            expected = f"{count}: so many come with source {stream.source}, kind {kind}"
            raise _wrong(f"{path}.references", stream.references, expected)


def _sides(path: str, sides: tuple[int, ...]) -> None:
    if any(side < 16 or side % 16 for side in sides):
        shown = "x".join(str(side) for side in sides)
        raise InvalidSettings(f"{path} is {shown}; expected multiples of 16 px", field=path)


def _between(path: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most or math.isinf(value):
        raise _wrong(path, value, f"at least {least}" if most == _ANY else f"from {least} to {most}")


def _at(recipe: Recipe, path: str) -> float:
    value: Any = recipe
    for key in path.split("."):
        value = getattr(value, key)
    return cast(float, value)


def _wrong(path: str, value: object, expected: str) -> InvalidSettings:
    return InvalidSettings(f"{path} is {value!r}; expected {expected}", field=path)
