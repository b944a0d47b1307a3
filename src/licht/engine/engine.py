"""The engine: a generator of progress and pictures over one model."""

import gc
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.core.errors import InvalidRequest, NotAvailable, OutOfMemory
from licht.core.request import ImageRequest, ImageResult, Preview, Progress
from licht.engine import stages
from licht.engine.fit import fitting_plan, held_bytes
from licht.engine.loras import LoraShelf
from licht.engine.offload import stream_blocks
from licht.engine.pictures import enlarge
from licht.engine.prompts import PromptTokenizer
from licht.engine.settle import Settled, settle, uses_two_passes
from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Variant
from licht.plan.plan import Residency, Setup
from licht.quant.swap import QUANTISERS
from licht.sampling.noise import initial_noise
from licht.sampling.schedule import sigmas
from licht.sampling.solvers import euler

Events = Generator[Progress | Preview | ImageResult, None, None]

_SMALL_PARAMETERS = 200_000_000
"""Below this size float32 costs a processor nothing, and is exact."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Choice:
    """Device and number formats as asked for; "auto" picks what suits machine and model.

    `dtype` is what is computed in, `quant` what the matrices of transformer and text tower are quantised to on loading.
    """

    device: str = "auto"
    dtype: str = "auto"
    quant: str = "none"
    ignore_plan: bool = False
    """Draw even where the plan says that it does not fit."""

    def placement(self, variant: Variant) -> Placement:
        """Settle both. Raises `NotAvailable` for a device that is not there, `InvalidRequest` for an unknown name."""
        device = choose_device(self.device)
        if self.quant != "none" and self.quant not in QUANTISERS:
            known = ", ".join(["none", *QUANTISERS])
            raise InvalidRequest(f"quant {self.quant!r} is unknown; use one of {known}", field="quant")
        quant = None if self.quant == "none" else self.quant
        if self.dtype == "auto":
            small = variant.transformer.parameters < _SMALL_PARAMETERS
            return Placement(device, torch.float32 if device.type == "cpu" and small else torch.bfloat16, quant)
        if self.dtype not in _DTYPES:
            raise InvalidRequest(f"dtype {self.dtype!r} is unknown; use auto, float32 or bfloat16", field="dtype")
        return Placement(device, _DTYPES[self.dtype], quant)


def choose_device(name: str) -> torch.device:
    """The device called `name`; "auto" prefers a GPU. Raises `NotAvailable` or `InvalidRequest`."""
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if not _DEVICE.fullmatch(name):
        raise InvalidRequest(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:N or mps", field="device")
    kind, _, index = name.partition(":")
    present = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if int(index or 0) >= present[kind]:
        raise NotAvailable(f"device {name!r} is not available on this machine; use --device auto", field="device")
    return torch.device(name)


class Engine:
    """Draws with one model. Networks are loaded when a stage first needs them and stay until `unload`."""

    def __init__(self, files: ModelFiles, choice: Choice, batch_size: int | None = None) -> None:
        """Keep `files` and settle the device; `batch_size` pictures are denoised together (default: 1 on a CPU)."""
        self.files = files
        self.variant = files.variant
        self.placement = choice.placement(files.variant)
        self.ignore_plan = choice.ignore_plan
        self.batch_size = batch_size or (1 if self.placement.device.type == "cpu" else 4)
        self.loras = LoraShelf(files.variant.transformer)
        self._tokenizer: PromptTokenizer | None = None
        self._tower: TextTower | None = None
        self._autoencoder: Autoencoder | None = None
        self._transformer: Flux2Transformer | None = None
        self._streamed = False

    def run(self, request: ImageRequest) -> Events:
        """Draw `request`: yields `Progress` as work goes on and one `ImageResult` per seed, in order.

        Closing the generator cancels within one step. Raises `InvalidRequest` for what the model cannot do,
        `InvalidCheckpoint` for weights that turn out broken, `DoesNotFit` before any work, `OutOfMemory`.
        """
        settled = settle(request, self.variant)
        notes, warnings = self.loras.read(request.loras)
        settled = replace(settled, notes=notes, warnings=settled.warnings + warnings)
        setup = self._setup(settled)
        with _memory_errors(self.placement.device):
            yield from self._draw(settled, setup)

    def _setup(self, settled: Settled) -> Setup:
        """How to run: what stays loaded, and whether the autoencoder works in bands. Raises `DoesNotFit`."""
        if self.ignore_plan:
            return Setup(Residency.RESIDENT, "none", "bfloat16", banded=False)
        held = held_bytes(self._tower, self._transformer, self._autoencoder)
        setup = fitting_plan(self.files, self.placement, settled, self.batch_size, held).setup
        streamed = setup.residency is Residency.STREAMED and self.placement.device.type != "cpu"
        if streamed != self._streamed:
            self.unload()
            self._streamed = streamed
        return setup

    def unload(self) -> None:
        """Let go of every network."""
        self._tokenizer = self._tower = self._autoencoder = self._transformer = None
        self.loras.detach()
        gc.collect()

    def _draw(self, settled: Settled, setup: Setup) -> Events:
        text, unconditional, warnings = yield from self._encode_prompt(settled)
        self._release_unless_resident(setup)
        references = yield from self._encode_references(settled, setup.banded)
        self._release_unless_resident(setup)
        conditions = yield from self._conditions(settled, text, unconditional, references)
        seeds, waiting = settled.request.seeds, []
        for start in range(0, len(seeds), self.batch_size):
            group = seeds[start : start + self.batch_size]
            latents = yield from self._denoise(settled, conditions, group, start)
            waiting += [(latents[n : n + 1], seed, start + n) for n, seed in enumerate(group)]
            if setup.residency is Residency.RESIDENT or start + self.batch_size >= len(seeds):
                # otherwise the transformer would have to be loaded again for every group
                self._release_unless_resident(setup)
                for one, seed, number in waiting:
                    yield from self._decode(settled, (one, seed, number), warnings, setup.banded)
                waiting = []
        self._release_unless_resident(setup)

    def _release_unless_resident(self, setup: Setup) -> None:
        """Let go of what the stage before needed, where the plan says that there is no room for all."""
        if setup.residency is Residency.RESIDENT:
            return
        self._tower = self._autoencoder = self._transformer = None
        self.loras.detach()
        gc.collect()
        if self.placement.device.type == "cuda":
            torch.cuda.empty_cache()

    def _encode_prompt(
        self, settled: Settled
    ) -> Generator[Progress, None, tuple[Tensor, Tensor | None, tuple[str, ...]]]:
        """(text, unconditional text or None, warnings)."""
        yield Progress("encode_prompt", 0, 1)
        prompts = [settled.request.prompt]
        if uses_two_passes(self.variant, settled.guidance):
            prompts.append("")
        tokens = self.tokenizer(prompts)
        warnings = settled.warnings
        if tokens.lengths[0] > self.tokenizer.length:
            kept = f"{self.tokenizer.length} of {tokens.lengths[0]} tokens"
            warnings = (*warnings, f"the prompt is too long for {self.variant.name}: the first {kept} were used")
        states = stages.encode_prompt(self.tower, tokens)
        yield Progress("encode_prompt", 1, 1)
        return states[:1], states[1:] if len(prompts) == 2 else None, warnings

    def _encode_references(
        self, settled: Settled, banded: bool
    ) -> Generator[Progress, None, stages.ReferenceTokens | None]:
        total = len(settled.references)
        if not total:
            return None
        yield Progress("encode_references", 0, total)
        latents = []
        for done, picture in enumerate(settled.references, start=1):
            latents.append(stages.encode_reference(self.autoencoder, picture, banded))
            yield Progress("encode_references", done, total)
        return stages.join_references(latents)

    def _conditions(
        self, settled: Settled, text: Tensor, unconditional: Tensor | None, references: stages.ReferenceTokens | None
    ) -> Generator[Progress, None, stages.Conditions]:
        cache = None
        if references is not None and self.variant.caches_references:
            yield Progress("cache_references", 0, 1)
            strengths = self.loras.beside(self.transformer, [settled.request.loras])
            with self.loras.adapters.using(strengths):
                cache = stages.cache_references(self.transformer, references, settled.guidance)
            yield Progress("cache_references", 1, 1)
        return stages.Conditions(text, unconditional, settled.guidance, references, cache)

    def _denoise(
        self, settled: Settled, conditions: stages.Conditions, seeds: tuple[int, ...], first: int
    ) -> Generator[Progress, None, Tensor]:
        yield Progress("denoise", 0, settled.steps, first)
        grid, channels = settled.native.grid, self.variant.transformer.in_channels
        noise = torch.cat([initial_noise(seed, grid, channels) for seed in seeds])
        latents = noise.to(self.placement.device)
        velocity = stages.velocity_of(self.transformer, conditions, grid)
        velocity = self.loras.switched(velocity, self.transformer, settled.request.loras)
        schedule = sigmas(settled.native.tokens, settled.steps)
        for done, latents in enumerate(euler(velocity, latents, schedule), start=1):  # noqa: B007, B020
            yield Progress("denoise", done, settled.steps, first)
        return latents

    def _decode(
        self, settled: Settled, drawn: tuple[Tensor, int, int], warnings: tuple[str, ...], banded: bool
    ) -> Events:
        """One picture; `drawn` is (latents (1, L, C), seed, number of the picture)."""
        latents_1LC, seed, number = drawn
        yield Progress("decode", 0, 1, number)
        picture = stages.decode(self.autoencoder, latents_1LC, settled.native.grid, banded)
        if settled.native != settled.size:
            picture = enlarge(picture, settled.size)
        yield Progress("decode", 1, 1, number)
        yield ImageResult(picture, seed, settled.native, settled.steps, settled.guidance, warnings, settled.notes)

    @property
    def tokenizer(self) -> PromptTokenizer:
        """The tokenizer, read on first use."""
        if self._tokenizer is None:
            self._tokenizer = PromptTokenizer(self.files.parts.tokenizer, self.variant.text, self.files.template)
        return self._tokenizer

    @property
    def tower(self) -> TextTower:
        """The text tower, loaded on first use."""
        if self._tower is None:
            self._tower = load_tower(self.files.tower, self._loading, self.variant.text)
            if self._streamed:
                stream_blocks(self._tower, self.placement.device)
        return self._tower

    @property
    def autoencoder(self) -> Autoencoder:
        """The autoencoder, loaded on first use."""
        if self._autoencoder is None:
            self._autoencoder = load_autoencoder(self.files.autoencoder, self.placement, self.files.autoencoder_config)
        return self._autoencoder

    @property
    def transformer(self) -> Flux2Transformer:
        """The flow transformer, loaded on first use."""
        if self._transformer is None:
            self._transformer = load_transformer(self.files.transformer, self._loading, self.files.transformer_config)
            if self._streamed:
                stream_blocks(self._transformer, self.placement.device)
        return self._transformer

    @property
    def _loading(self) -> Placement:
        """Where the large networks are loaded: beside the device if their blocks are streamed to it."""
        return replace(self.placement, device=torch.device("cpu")) if self._streamed else self.placement


class Stopwatch:
    """Adds up the seconds that pass in each stage, from the progress that an engine yields."""

    def __init__(self) -> None:
        """Start the clock."""
        self._seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def see(self, progress: Progress) -> None:
        """Book the time since the last progress to its stage, unless the stage only begins now."""
        now = time.perf_counter()
        if progress.done:
            self._seconds[progress.stage] = self._seconds.get(progress.stage, 0.0) + now - self._last
        self._last = now

    @property
    def seconds(self) -> dict[str, float]:
        """Stage -> seconds so far, rounded to the millisecond."""
        return {stage: round(value, 3) for stage, value in self._seconds.items()}


@contextmanager
def _memory_errors(device: torch.device) -> Iterator[None]:
    """Turn the device's running out of memory into one clear line."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        # for a processor's memory torch has no class of its own
        if isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise OutOfMemory(f"{device} ran out of memory; ask for a smaller size or fewer references") from error
        raise
