"""The engine: a generator of progress and pictures over one model."""

import gc
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.core.errors import InvalidRequest, NotAvailable, OutOfMemory
from licht.core.request import ImageRequest, ImageResult, Progress
from licht.engine import stages
from licht.engine.pictures import enlarge
from licht.engine.prompts import PromptTokenizer
from licht.engine.settle import Settled, settle, uses_two_passes
from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Kind, Variant
from licht.sampling.noise import initial_noise
from licht.sampling.schedule import sigmas
from licht.sampling.solvers import euler

Events = Generator[Progress | ImageResult, None, None]

_SMALL_PARAMETERS = 200_000_000
"""Below this size float32 costs a processor nothing, and is exact."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
_DEVICE = re.compile(r"cpu|mps|cuda(:\d{1,3})?")


@dataclass(frozen=True, slots=True)
class Choice:
    """Device and number format as asked for; "auto" picks what suits machine and model."""

    device: str = "auto"
    dtype: str = "auto"

    def placement(self, variant: Variant) -> Placement:
        """Settle both. Raises `NotAvailable` for a device that is not there, `InvalidRequest` for an unknown name."""
        device = choose_device(self.device)
        if self.dtype == "auto":
            small = variant.transformer.parameters < _SMALL_PARAMETERS
            return Placement(device, torch.float32 if device.type == "cpu" and small else torch.bfloat16)
        if self.dtype not in _DTYPES:
            raise InvalidRequest(f"dtype {self.dtype!r} is unknown; use auto, float32 or bfloat16", field="dtype")
        return Placement(device, _DTYPES[self.dtype])


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
        self.batch_size = batch_size or (1 if self.placement.device.type == "cpu" else 4)
        self._tokenizer: PromptTokenizer | None = None
        self._tower: TextTower | None = None
        self._autoencoder: Autoencoder | None = None
        self._transformer: Flux2Transformer | None = None

    def run(self, request: ImageRequest) -> Events:
        """Draw `request`: yields `Progress` as work goes on and one `ImageResult` per seed, in order.

        Closing the generator cancels within one step. Raises `InvalidRequest` for what the model cannot do,
        `InvalidCheckpoint` for weights that turn out broken, `OutOfMemory`.
        """
        settled = settle(request, self.variant)
        with _memory_errors(self.placement.device):
            yield from self._draw(settled)

    def unload(self) -> None:
        """Let go of every network."""
        self._tokenizer = self._tower = self._autoencoder = self._transformer = None
        gc.collect()

    def _draw(self, settled: Settled) -> Events:
        text, unconditional, warnings = yield from self._encode_prompt(settled)
        references = yield from self._encode_references(settled)
        conditions = yield from self._conditions(settled, text, unconditional, references)
        seeds = settled.request.seeds
        for start in range(0, len(seeds), self.batch_size):
            group = seeds[start : start + self.batch_size]
            latents = yield from self._denoise(settled, conditions, group, start)
            for offset, seed in enumerate(group):
                yield from self._decode(settled, latents[offset : offset + 1], seed, start + offset, warnings)

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

    def _encode_references(self, settled: Settled) -> Generator[Progress, None, stages.ReferenceTokens | None]:
        total = len(settled.references)
        if not total:
            return None
        yield Progress("encode_references", 0, total)
        latents = []
        for done, picture in enumerate(settled.references, start=1):
            latents.append(stages.encode_reference(self.autoencoder, picture))
            yield Progress("encode_references", done, total)
        return stages.join_references(latents)

    def _conditions(
        self, settled: Settled, text: Tensor, unconditional: Tensor | None, references: stages.ReferenceTokens | None
    ) -> Generator[Progress, None, stages.Conditions]:
        cache = None
        if references is not None and self.variant.kind is Kind.KV:
            yield Progress("cache_references", 0, 1)
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
        schedule = sigmas(settled.native.tokens, settled.steps)
        for done, latents in enumerate(euler(velocity, latents, schedule), start=1):  # noqa: B007, B020
            yield Progress("denoise", done, settled.steps, first)
        return latents

    def _decode(
        self, settled: Settled, latents_1LC: Tensor, seed: int, number: int, warnings: tuple[str, ...]
    ) -> Events:
        yield Progress("decode", 0, 1, number)
        picture = stages.decode(self.autoencoder, latents_1LC, settled.native.grid)
        if settled.native != settled.size:
            picture = enlarge(picture, settled.size)
        yield Progress("decode", 1, 1, number)
        yield ImageResult(picture, seed, settled.native, settled.steps, settled.guidance, warnings)

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
            self._tower = load_tower(self.files.tower, self.placement, self.variant.text)
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
            self._transformer = load_transformer(self.files.transformer, self.placement, self.files.transformer_config)
        return self._transformer


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
