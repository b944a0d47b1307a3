"""Plans: which parts are in memory in which stage, the peak of each, and how long it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import partial
from types import MappingProxyType
from typing import Final

from licht.core.sizes import MIN_SIDE_PX, PIXELS_PER_TOKEN, Size
from licht.model.variants import Variant
from licht.plan import sizes
from licht.plan.work import (
    SLICE_BYTES,
    Request,
    Work,
    decode_work,
    denoise_work,
    encode_prompt_work,
    encode_references_work,
    passes,
)


class Residency(StrEnum):
    """Which weights are on the device at a time."""

    RESIDENT = "resident"
    """All of them, from the first stage to the last."""
    IN_TURN = "in turn"
    """Those of one stage; what a stage needed is released before the next one."""
    STREAMED = "streamed"
    """Of transformer and tower two blocks at a time; the others come from memory or disk when it is their turn."""


@dataclass(frozen=True, slots=True)
class Machine:
    """Where it is to run. Rates are measured by calibration, or stated defaults."""

    name: str
    memory_bytes: int
    overhead_bytes: int
    """What the runtime takes before there is any model."""
    operations_per_s: Mapping[str, float]
    """Of a large matrix product, by the format that it is computed in."""
    dequantised_per_s: float
    """Weights a second."""
    streamed_bytes_per_s: float
    native: tuple[str, ...] = ()
    """Formats that are multiplied without being dequantised."""
    streams_quantised: bool = True
    """Whether matrices that are quantised on loading can be kept elsewhere; a processor has no elsewhere."""
    kept_share: float = 0.0
    """Memory that activations have freed and that is kept for the next ones, beside what they take, as a share of it."""
    maps_files: bool = False
    """Whether weights are used where they are mapped: of an embedding only the rows of the prompt are then read."""
    measured: bool = False


CPU: Final = Machine(
    "cpu",
    0,
    680 * 2**20,
    MappingProxyType({"float32": 1e11, "bfloat16": 4e11, "int8": 6e11}),
    6e8,
    1.5e9,
    streams_quantised=False,
    kept_share=0.83,
    maps_files=True,
)
GPU: Final = Machine(
    "gpu", 0, 600 * 2**20, MappingProxyType({"float32": 4e13, "bfloat16": 2e14, "fp8": 3e14}), 2e11, 1.5e10, ("fp8",)
)
"""Stated defaults, for where nothing was measured."""


@dataclass(frozen=True, slots=True)
class Setup:
    """A way to run a model. `stored` and `stored_tower` are the formats that the files of both have already."""

    residency: Residency
    quant: str
    dtype: str
    banded: bool
    stored: str = "none"
    stored_tower: str = "none"

    @property
    def tower_form(self) -> str:
        """The format of the text tower's layers in memory."""
        return self.quant if self.quant != "none" else self.stored_tower

    @property
    def form(self) -> str:
        """The format of the blocks in memory."""
        return self.quant if self.quant != "none" else self.stored

    @property
    def label(self) -> str:
        """In words."""
        bands = ", decoder in bands" if self.banded else ""
        return f"{self.form if self.form != 'none' else self.dtype}, {self.residency}{bands}"


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage: bytes of each part that is on the device, of everything else, and seconds."""

    name: str
    parts: Mapping[str, int]
    work_bytes: int
    seconds: float

    @property
    def peak_bytes(self) -> int:
        """The most that is in use."""
        return sum(self.parts.values()) + self.work_bytes


@dataclass(frozen=True, slots=True)
class Plan:
    """Every stage of a request, in one setup, on one machine."""

    model: str
    request: Request
    machine: Machine
    setup: Setup
    stages: tuple[Stage, ...]
    weights_bytes: int
    """All that has to be kept somewhere: on the device, in main memory or on a disk."""

    @property
    def peak_bytes(self) -> int:
        """The largest peak of any stage."""
        return max(stage.peak_bytes for stage in self.stages)

    @property
    def seconds(self) -> float:
        """Expected time of all stages."""
        return sum(stage.seconds for stage in self.stages)

    @property
    def fits(self) -> bool:
        """Whether every stage stays within the memory."""
        return self.peak_bytes <= self.machine.memory_bytes


def setups(quant: str, dtype: str, stored: str = "none", stored_tower: str = "none") -> Iterator[Setup]:
    """The ways to run in these formats, fastest first."""
    for residency, banded in (
        (Residency.RESIDENT, False),
        (Residency.IN_TURN, False),
        (Residency.IN_TURN, True),
        (Residency.STREAMED, True),
    ):
        yield Setup(residency, quant, dtype, banded, stored, stored_tower)


def make_plan(variant: Variant, request: Request, machine: Machine, setup: Setup, batch: int = 1) -> Plan:
    """What happens in every stage with this setup."""
    prompts = passes(variant, request.guidance)
    works = {
        "encode_prompt": ("text tower", encode_prompt_work(variant.text, prompts, setup.dtype)),
        "encode_references": ("autoencoder", encode_references_work(variant, request, setup.dtype, setup.banded)),
        "denoise": ("transformer", denoise_work(variant, request, batch, setup.dtype)),
        "decode": ("autoencoder", decode_work(variant, request, setup.dtype, setup.banded)),
    }
    weights = _weights(variant, machine, setup)
    stages = []
    for name, (part, work) in works.items():
        if name == "encode_references" and not request.images:
            continue
        resident = setup.residency is Residency.RESIDENT
        parts = dict(weights) if resident else {part: weights[part]}
        if request.lora_bytes and (resident or part == "transformer"):
            parts["LoRA"] = request.lora_bytes
        beside = work.memory_bytes + machine.overhead_bytes + _conversion_bytes(variant, machine, setup, part)
        if part == "transformer" and setup.residency is not Residency.STREAMED:
            beside += round(machine.kept_share * work.memory_bytes)
        stages.append(Stage(name, parts, beside, _seconds(variant, request, machine, setup, part, work)))
    whole = _weights(variant, machine, replace(setup, residency=Residency.RESIDENT))
    return Plan(variant.name, request, machine, setup, tuple(stages), sum(whole.values()) + request.lora_bytes)


def choose(
    variant: Variant,
    request: Request,
    machine: Machine,
    quant: str,
    dtype: str,
    stored: str = "none",
    batch: int = 1,
    stored_tower: str = "none",
) -> Plan:
    """The fastest plan in these formats that fits, or the smallest one if none does."""
    ways = list(setups(quant, dtype, stored, stored_tower))
    if quant != "none" and not machine.streams_quantised:
        ways = [setup for setup in ways if setup.residency is not Residency.STREAMED]
    plans = [make_plan(variant, request, machine, setup, batch) for setup in ways]
    return next((plan for plan in plans if plan.fits), plans[-1])


def alternatives(plan: Plan, variant: Variant, limit: int = 3) -> list[Plan]:
    """Other plans that fit: in smaller formats, and if none of those fits, at smaller sizes. The nearest come first."""
    machine, setup = plan.machine, plan.setup

    def other(form: str, size: Size) -> Plan:
        request = replace(plan.request, size=size)
        return choose(variant, request, machine, form, setup.dtype, setup.stored, stored_tower=setup.stored_tower)

    small = [form for form in ("fp8" if "fp8" in machine.native else "int8", "q4") if form != setup.form]
    found = [one for form in small if (one := other(form, plan.request.size)).fits]
    for size in _smaller(plan.request.size) if not found and not plan.fits else ():
        for form in (setup.quant, *small):
            smaller = other(form, size)
            if smaller.fits:
                return [smaller]
    return found[:limit]


def _smaller(size: Size) -> Iterator[Size]:
    """Sizes of nearly the same ratio, each a tenth narrower than the one before."""
    scale = 0.9
    while min(size.width, size.height) * scale >= MIN_SIDE_PX:
        width, height = (int(side * scale) // PIXELS_PER_TOKEN * PIXELS_PER_TOKEN for side in (size.width, size.height))
        if min(width, height) >= MIN_SIDE_PX:
            yield Size(width, height)
        scale *= 0.9


def _weights(variant: Variant, machine: Machine, setup: Setup) -> dict[str, int]:
    """Bytes of each part on the device."""
    embedding = variant.text.tower.vocab_size * variant.text.tower.hidden_size
    unread = sizes.bytes_of(embedding, setup.dtype) if machine.maps_files and setup.dtype == "bfloat16" else 0
    tower, transformer = sizes.tower_bytes, sizes.transformer_bytes
    if setup.residency is Residency.STREAMED:
        # pages of a mapped file that are read ahead belong to the system until the block runs
        there = 1 if machine.maps_files else 2
        tower = partial(sizes.streamed_tower_bytes, there=there)
        transformer = partial(sizes.streamed_transformer_bytes, there=there)
    return {
        "text tower": tower(variant.text, setup.dtype, setup.tower_form) - unread,
        "transformer": transformer(variant.transformer, setup.dtype, setup.form),
        "autoencoder": sizes.bytes_of(sizes.autoencoder_weights(variant.autoencoder), setup.dtype),
    }


def _conversion_bytes(variant: Variant, machine: Machine, setup: Setup, part: str) -> int:
    """What turning stored weights into those that are multiplied takes for a moment."""
    form = {"text tower": setup.tower_form, "transformer": setup.form, "autoencoder": "none"}[part]
    if form == "none":
        return 0
    if form not in machine.native:
        return SLICE_BYTES
    # a processor's integers are rearranged: two more copies of one matrix
    largest = sizes.largest_matrix(variant.transformer if part == "transformer" else variant.text)
    return 2 * sizes.bytes_of(largest, form) if form == "int8" and machine.maps_files else 0


def _seconds(variant: Variant, request: Request, machine: Machine, setup: Setup, part: str, work: Work) -> float:
    """Arithmetic after dequantising, while blocks are streamed."""
    form = setup.tower_form if part == "text tower" else setup.form
    native = form in machine.native and part != "autoencoder"
    seconds = work.operations / machine.operations_per_s[form if native else setup.dtype]
    if part == "autoencoder":
        return seconds
    runs, blocks = 1, variant.text.layers_used * sizes.tower_layer_weights(variant.text)
    if part == "transformer":
        double, single = sizes.block_weights(variant.transformer)
        runs = request.num * (request.steps or variant.default_steps)
        blocks = variant.transformer.depth * double + variant.transformer.depth_single_blocks * single
    if form != "none" and not native:
        seconds += runs * blocks / machine.dequantised_per_s
    if setup.residency is Residency.STREAMED:
        form = form if form != "none" else setup.dtype
        seconds = max(seconds, runs * sizes.bytes_of(blocks, form) / machine.streamed_bytes_per_s)
    return seconds
