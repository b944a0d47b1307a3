"""What a training run is: frozen, written beside its checkpoints, compared on resume."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final

from licht.core.errors import InvalidSettings

_LARGEST: Final = 1e300
"""No number beyond it means anything; infinities and what is no number are beyond it."""
_WORDS: Final[Mapping[object, str]] = MappingProxyType(
    {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
)


class Task(StrEnum):
    """What is trained."""

    AUTOENCODER = "autoencoder"
    FLOW = "flow"
    """Tower and transformer together, undistilled."""
    GUIDANCE = "guidance"
    """One pass that gives what two passes and a guidance scale give."""
    STEPS = "steps"
    """A few steps that lead where many led."""
    CRITIC = "critic"
    """A recogniser of latents, by whose eyes others are polished."""
    POLISH = "polish"
    """A few-step model learns from true pictures what its teacher could not show it."""
    JUDGE = "judge"
    """A recogniser that measures what the others draw."""


class TimeShape(StrEnum):
    """Distribution of training times before the shift."""

    LOGIT_NORMAL = "logit_normal"
    PLATEAU = "plateau"
    """Logit-normal below its mode, constant above it: noise levels near 1 are seen more often."""
    UNIFORM = "uniform"


@dataclass(frozen=True, slots=True)
class OptimConfig:
    """Optimisers and schedule. Matrices inside blocks are trained with Muon, everything else with AdamW."""

    steps: int
    batch: int
    adamw_lr: float = 1e-3
    muon_lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    clip: float = 1.0
    warmup_steps: int = 100
    decay_share: float = 0.3
    """Share of the steps, at the end, over which the rates fall linearly to zero."""
    ema: float = 0.999
    autocast: bool = True
    """Compute in bfloat16 where the device multiplies that faster than float32."""
    muon: bool = True
    muon_kernels: bool = False
    """Train the kernels of convolutions with Muon as well."""
    compile: bool = False
    """Fuse the networks' blocks with torch.compile: a third faster on a CPU, after two minutes of compiling."""
    critic_rate: float = 1.0
    """Factor on the rates of a critic that learns beside a model."""
    shard: bool = False
    """Spread weights, gradients and the optimisers' state over the processes of torchrun (FSDP2), which otherwise all
    hold everything (DDP)."""


class Source(StrEnum):
    """Where the rows of a stream come from."""

    PICTURE = "picture"
    """A scene and its captions: text to image."""
    EDIT = "edit"
    """A scene before and after a change; the reference is the scene before."""
    TASK = "task"
    """Several references to be brought together."""
    FOLDER = "folder"
    """A folder of one's own pictures, with captions and perhaps references."""


class Broken(StrEnum):
    """What becomes of a folder in which pictures are broken or have no caption."""

    REFUSE = "refuse"
    SKIP = "skip"


@dataclass(frozen=True, slots=True)
class Stream:
    """Rows of the rendered world that can share a batch: one size (width, height), one number of references.

    Rows take the `kinds` of scenes, edits or tasks in turn; each is kept with `captions` phrasings. A step draws from
    this stream in proportion to `weight`. References are squares of `reference_px`. A stream of source `folder` has no
    kinds, and its rows are counted when the folder is read. `skip` rows of the world are passed over first, so that
    two streams of the same kinds need not show the same scenes.
    """

    name: str
    source: Source
    kinds: tuple[str, ...]
    rows: int
    weight: float
    size_px: tuple[int, int] = (128, 128)
    references: int = 0
    reference_px: int = 128
    captions: int = 4
    folder: str | None = None
    skip: int = 0

    @property
    def grid(self) -> tuple[int, int]:
        """(rows, columns) of latent tokens."""
        return self.size_px[1] // 16, self.size_px[0] // 16

    @property
    def reference_grid(self) -> tuple[int, int]:
        """(rows, columns) of latent tokens of each reference."""
        return self.reference_px // 16, self.reference_px // 16


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which pictures are seen: streams for the flow, `pictures` of mixed scenes for the autoencoder."""

    seed: int = 0
    streams: tuple[Stream, ...] = ()
    pictures: int = 0
    crop_px: int = 64
    broken: Broken = Broken.REFUSE


@dataclass(frozen=True, slots=True)
class AutoencoderLoss:
    """Weights of the reconstruction terms."""

    mse: float = 1.0
    l1: float = 0.3
    gradient_l1: float = 0.5
    kl: float = 1e-6
    semantic: float = 0.0
    """Weight of what one linear map of each latent position is to tell about what is seen there; 0 leaves it out."""
    noise: float = 0.0
    """Most noise that the decoder has to bear, in standard deviations of each latent channel; each picture of a batch
    gets an even share between none and this. It keeps the latents' errors and the pictures' in proportion."""
    decoder_only: bool = False
    """Go on with the decoder alone: the latents, and every flow model that was trained on them, stay as they are."""


@dataclass(frozen=True, slots=True)
class FlowLoss:
    """Distribution of times and dropout of captions."""

    shape: TimeShape = TimeShape.LOGIT_NORMAL
    shift: float = 2.2
    caption_dropout: float = 0.1
    text_step: int = 16
    """Captions of equal length, rounded up to a multiple of this, make batches of their own, cut to that length ..."""
    full_length: float = 0.25
    """... except for this share of them, which keeps the padding that it meets in use."""
    self_flow: float = 0.0
    """Weight of the Self-Flow alignment (0.8 in its paper); 0 leaves it out."""
    grounded: float = 0.0
    """Weight of what a layer in the middle is to tell of what will stand where; 0 leaves it out."""
    objects: float = 0.0
    """How much more an error counts in tokens that show a thing, a character, a sign or letters; 0 counts all alike."""


@dataclass(frozen=True, slots=True)
class DistilConfig:
    """How a student follows its teacher.

    A guidance student learns scales from `least_guidance` to `most_guidance`; a step student what the teacher reaches
    with scale `guidance` in `substeps` times as many steps as its own `steps`.
    """

    guidance: float = 3.0
    reference_guidance: float = 1.0
    """How much more than by itself a teacher that guides by passes is to follow the references of tasks (not those of
    edits, which are then done less often); 1 is as by itself."""
    least_guidance: float = 1.0
    most_guidance: float = 6.0
    steps: int = 4
    substeps: int = 4
    on_policy: float = 0.5
    """Share of a step student's rows that start where the student itself has come to, instead of at noisy data."""


@dataclass(frozen=True, slots=True)
class PolishConfig:
    """How a few-step model learns from its critic."""

    critic_from: str | None = None
    """Run with a critic, or with a model that was polished, whose critic goes on."""
    tail: int = 4
    """So many of its last steps learn."""
    adversarial: float = 0.25
    """Weight of passing for true."""
    shown: float = 0.1
    """Weight of what the critic must be able to tell of what was made."""
    unlike: float = 1.0
    """Weight of the distance in the critic's features, where the last step or the last two are taken."""
    error: float = 10.0
    """Weight of the squared error where only the last step is taken."""
    steady: float = 0.2
    """Weight of what noise may not change about what the critic takes for true."""


@dataclass(frozen=True, slots=True)
class CarryConfig:
    """What other networks have learned, added to those of `start_from` before they learn themselves (`carry`)."""

    learned_by: str | None = None
    """Run folder or model folder of the networks that have learned ..."""
    since: str | None = None
    """... and of what they were before."""


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """How a judge learns."""

    keep_finder: bool = False
    """Leave what says where things are as it came from `start_from`, which saves its backward pass."""
    patterned: float = 0.0
    """Share of plain things that are given a pattern. The world shows few, and each has two colours to be told."""


@dataclass(frozen=True, slots=True)
class Networks:
    """Sizes of the networks, as in the checkpoint's own configuration."""

    vae_channels: tuple[int, ...] = (16, 32, 64, 64)
    vae_blocks: int = 1
    vae_groups: int = 8
    z_channels: int = 32
    hidden_size: int = 192
    heads: int = 4
    depth: int = 3
    depth_single: int = 7
    tower_size: int = 256
    tower_layers: int = 4
    tower_heads: int = 4
    tower_kv_heads: int = 2
    text_layers: tuple[int, ...] = (1, 2, 3)
    text_length: int = 96
    vocab_size: int = 1024


@dataclass(frozen=True, slots=True)
class Recipe:
    """One training run, complete. Two runs with equal recipes on one machine are equal."""

    name: str
    task: Task
    hardware: str
    optim: OptimConfig
    data: DataConfig = field(default_factory=DataConfig)
    networks: Networks = field(default_factory=Networks)
    autoencoder: AutoencoderLoss = field(default_factory=AutoencoderLoss)
    flow: FlowLoss = field(default_factory=FlowLoss)
    distil: DistilConfig = field(default_factory=DistilConfig)
    polish: PolishConfig = field(default_factory=PolishConfig)
    carry: CarryConfig = field(default_factory=CarryConfig)
    judge: JudgeConfig = field(default_factory=JudgeConfig)
    autoencoder_from: str | None = None
    """Run folder or model folder with the trained autoencoder; without it, that of `start_from`."""
    start_from: str | None = None
    """Run folder or model folder with networks to go on from (fine-tuning, distillation); its tokenizer is kept.
    A judge goes on from the run or the file of another, or from `shipped`, the one that measures."""
    teacher_from: str | None = None
    """The teacher of a distillation, where it is not `start_from`; it may embed its guidance or not."""
    checkpoint_minutes: float = 3.0
    sample_minutes: float = 15.0
    seed: int = 0

    def as_json(self) -> str:
        """Canonical JSON: equal recipes have equal text."""
        return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)


def recipe_from_json(text: str) -> Recipe:
    """The recipe that `Recipe.as_json` wrote; what it leaves out is as usual.

    Raises `InvalidSettings` for an unknown field, a missing one that has no usual value, or a wrong type.
    """
    try:
        data = json.loads(text)
    except ValueError as error:
        raise InvalidSettings(f"a recipe must be JSON ({error}); write one with `licht train RECIPE --show`") from error
    recipe: Recipe = _built(Recipe, data, "recipe")
    return recipe


def _built(kind: type[Any], data: object, path: str) -> Any:  # noqa: ANN401 - any of the dataclasses above
    hints = typing.get_type_hints(kind)
    if not isinstance(data, dict):
        raise InvalidSettings(f"{path} is {data!r}; expected an object with {', '.join(hints)}", field=path)
    for key in data:
        if key not in hints:
            raise InvalidSettings(f"{path}.{key} is unknown; here there are {', '.join(hints)}", field=f"{path}.{key}")
    lacking = [each.name for each in dataclasses.fields(kind) if _is_needed(each) and each.name not in data]
    if lacking:
        raise InvalidSettings(f"{path} lacks {', '.join(lacking)}; add what is missing", field=path)
    return kind(**{key: _typed(hints[key], value, f"{path}.{key}") for key, value in data.items()})


def _is_needed(each: dataclasses.Field[Any]) -> bool:
    return each.default is dataclasses.MISSING and each.default_factory is dataclasses.MISSING


def _typed(hint: Any, value: Any, path: str) -> Any:  # noqa: ANN401 - a type, and a JSON value to become of it
    """`value` as an instance of `hint`: a dataclass, an enumeration, a tuple, an optional or a plain type."""
    if dataclasses.is_dataclass(hint):
        return _built(typing.cast(type[Any], hint), value, path)
    parts = typing.get_args(hint)
    if isinstance(hint, types.UnionType):
        return None if value is None else _typed(parts[0], value, path)
    if typing.get_origin(hint) is tuple and isinstance(value, list | tuple):
        kinds = [parts[0]] * len(value) if parts[-1] is Ellipsis else list(parts)
        if len(kinds) == len(value):
            pairs = zip(kinds, value, strict=True)
            return tuple(_typed(each, item, f"{path}[{at}]") for at, (each, item) in enumerate(pairs))
    elif isinstance(hint, type) and issubclass(hint, StrEnum) and value in list(hint):
        return hint(value)
    elif hint is float and type(value) in {int, float} and abs(value) <= _LARGEST:
        return float(value)
    elif isinstance(hint, type) and hint is not float and type(value) is hint:
        return value
    raise InvalidSettings(f"{path} is {value!r}; expected {_told(hint)}", field=path)


def _told(hint: Any) -> str:  # noqa: ANN401 - a type
    """What is expected, in words."""
    parts = typing.get_args(hint)
    if typing.get_origin(hint) is tuple:
        if parts[-1] is Ellipsis:
            return f"a list, each of it {_told(parts[0])}"
        return f"a list of {len(parts)}, each of it {_told(parts[0])}"
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        return f"one of {', '.join(hint)}"
    if dataclasses.is_dataclass(hint):
        return f"an object with {', '.join(typing.get_type_hints(hint))}"
    return _WORDS[hint]


def override(recipe: Recipe, changes: dict[str, str]) -> Recipe:
    """`recipe` with dotted fields replaced, such as `{"optim.steps": "500"}`.

    Raises `InvalidSettings` for an unknown field or a value of the wrong type.
    """
    for path, text in changes.items():
        recipe = _replace(recipe, path, path.split("."), text)
    return recipe


def _replace(config: Any, path: str, keys: list[str], text: str) -> Any:  # noqa: ANN401 - any of the dataclasses above
    hints = typing.get_type_hints(type(config))
    if keys[0] not in hints:
        raise InvalidSettings(f"recipe field {path!r} is unknown; here there are {', '.join(hints)}", field=path)
    old = getattr(config, keys[0])
    if len(keys) > 1:
        if not dataclasses.is_dataclass(old):
            raise InvalidSettings(f"recipe field {path!r} is unknown: {keys[0]} has no parts", field=path)
        return dataclasses.replace(config, **{keys[0]: _replace(old, path, keys[1:], text)})
    return dataclasses.replace(config, **{keys[0]: _typed(hints[keys[0]], _json_of(hints[keys[0]], text), path)})


def _json_of(hint: Any, text: str) -> object:  # noqa: ANN401 - a type
    """What was typed as a JSON value; texts need no quotation marks."""
    plain = text != "null" and (hint in {str, str | None} or (isinstance(hint, type) and issubclass(hint, StrEnum)))
    try:
        return text if plain else json.loads(text)
    except ValueError:
        return text


def difference(ours: str, theirs: str) -> list[str]:
    """The dotted fields in which two recipes (as JSON) differ, with both values."""
    return sorted(_differences(json.loads(ours), json.loads(theirs), ""))


def _differences(ours: Any, theirs: Any, path: str) -> list[str]:  # noqa: ANN401 - JSON values
    if isinstance(ours, dict) and isinstance(theirs, dict):
        keys = sorted(set(ours) | set(theirs))
        return [
            line for key in keys for line in _differences(ours.get(key), theirs.get(key), f"{path}.{key}".lstrip("."))
        ]
    return [] if ours == theirs else [f"{path}: {ours!r} here, {theirs!r} there"]
