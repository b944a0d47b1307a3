"""The engine: a generator of progress and pictures over one model."""

import gc
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.core.errors import InvalidRequest, OutOfMemory
from licht.core.request import ImageRequest, ImageResult, Picture, Preview, Progress, Reference
from licht.core.sizes import floor_to_tokens
from licht.engine import stages
from licht.engine.cache import CacheChoice
from licht.engine.devices import choose_device
from licht.engine.fit import fitting_plan, held_bytes
from licht.engine.latents import Latents, decode_latents, encode_picture
from licht.engine.likelihood import LEVELS, NOISE_SEED, advantage
from licht.engine.loras import LoraShelf
from licht.engine.offload import leave_as_stored, release, stream_blocks
from licht.engine.pictures import cover
from licht.engine.prompts import PromptTokenizer, PromptTokens
from licht.engine.recall import Recall
from licht.engine.settle import Settled, settle, uses_two_passes
from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer, ReferenceCache
from licht.model.variants import Variant
from licht.plan.plan import Residency, Setup
from licht.quant.pages import hand_back_freed_memory, handing_back, keep_freed_memory, trim
from licht.quant.swap import QUANTISERS
from licht.sampling.noise import grid_to_tokens, initial_noise
from licht.sampling.schedule import sigmas
from licht.sampling.solvers import Adjust, euler_steps
from licht.sampling.start import from_strength, keep_outside, noised

Events = Generator[Progress | Preview | ImageResult, None, None]
T = TypeVar("T")

_SMALL_PARAMETERS = 200_000_000
"""Below this size float32 costs a processor nothing, and is exact."""
_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


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
    cache: CacheChoice = field(default_factory=CacheChoice)

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


class Engine:
    """Draws with one model. Networks are loaded when a stage first needs them and stay until `unload`."""

    def __init__(self, files: ModelFiles, choice: Choice, batch_size: int | None = None) -> None:
        """Keep `files` and settle the device; `batch_size` pictures are denoised together (default: 1 on a CPU)."""
        self.files = files
        self.variant = files.variant
        self.placement = choice.placement(files.variant)
        self.ignore_plan = choice.ignore_plan
        if self.placement.device.type == "cpu":
            keep_freed_memory()
        self.batch_size = batch_size or (1 if self.placement.device.type == "cpu" else 4)
        self.loras = LoraShelf(files.variant.transformer)
        self.recall = Recall(files, self.placement, choice.cache)
        self._tokenizer: PromptTokenizer | None = None
        self._tower: TextTower | None = None
        self._autoencoder: Autoencoder | None = None
        self._transformer: Flux2Transformer | None = None
        self._streamed = self._in_turn = False

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
        loras = self.loras.memory_bytes(settled.request.loras, self.placement.device, self.placement.compute_dtype)
        setup = fitting_plan(self.files, self.placement, settled, self.batch_size, held, loras).setup
        streamed = setup.residency is Residency.STREAMED
        self._in_turn = setup.residency is Residency.IN_TURN
        if streamed != self._streamed:
            self.unload()
            self._streamed = streamed
            if self._is_large_on_cpu:
                (hand_back_freed_memory if streamed else keep_freed_memory)()
        return setup

    def encode(self, picture: Picture) -> Latents:
        """The latents of a picture. Raises `InvalidRequest` for a size that cannot be drawn, `OutOfMemory`."""
        with _memory_errors(self.placement.device):
            return encode_picture(self.autoencoder, picture)

    def decode(self, latents: Latents) -> Picture:
        """The picture of latents, not yet released. Raises `InvalidRequest` if they are of another autoencoder."""
        with _memory_errors(self.placement.device):
            return decode_latents(self.autoencoder, latents)

    def fits(
        self, prompt: str, pictures: Sequence[Picture], references: Sequence[Reference] = ()
    ) -> Generator[float, None, list[float]]:
        """How well each of `pictures` fits `prompt`, see `likelihood`; higher is better.

        Yields which part is done after each step, closing it cancels. Raises `InvalidRequest`, `DoesNotFit`,
        `OutOfMemory`.
        """
        whole = floor_to_tokens(pictures[0].width, pictures[0].height)
        settled = settle(ImageRequest(prompt, (0,), references=tuple(references), size=whole), self.variant)
        # without guidance: what is asked for is what the model believes, not what it is pushed to
        settled = replace(settled, guidance=1.0 if self.variant.transformer.guidance_embed else None)
        setup = self._setup(settled)
        with _memory_errors(self.placement.device):
            texts = [self._text(self.tokenizer([text])) for text in (prompt, "")]
            self._end_stage(setup)
            beside = yield from _silently(self._encode_pictures(settled, setup.banded))
            small = [cover(picture, settled.native) for picture in pictures]
            with self._lean():
                clean = [stages.encode_reference(self.autoencoder, picture, setup.banded) for picture in small]
            self._end_stage(setup)
            velocities = []
            for text in texts:
                conditions = yield from _silently(self._conditions(settled, text, None, beside[0]))
                velocity = stages.velocity_of(self.transformer, conditions, settled.native.grid)
                velocities.append(self.loras.switched(velocity, self.transformer, ()))
            noise = initial_noise(NOISE_SEED, settled.native.grid, self.variant.transformer.in_channels)
            noise, scores = noise.to(self.placement.device), []
            for number, latents in enumerate(clean):
                found = 0.0
                for done, level in enumerate(LEVELS, start=1):
                    found += advantage(velocities[0], velocities[1], grid_to_tokens(latents), noise, level)
                    yield (number + done / len(LEVELS)) / len(clean)
                scores.append(found / len(LEVELS))
            self._end_stage(setup)
            return scores

    def unload(self) -> None:
        """Let go of every network."""
        self._tokenizer = self._tower = self._autoencoder = self._transformer = None
        self.loras.detach()
        gc.collect()

    def _draw(self, settled: Settled, setup: Setup) -> Events:
        text, unconditional, warnings = yield from self._encode_prompt(settled)
        self._end_stage(setup)
        references, clean = yield from self._encode_pictures(settled, setup.banded)
        self._end_stage(setup)
        conditions = yield from self._conditions(settled, text, unconditional, references)
        warnings += self.recall.cache.take_warnings()
        previews = settled.request.previews and setup.residency is Residency.RESIDENT
        if settled.request.previews and not previews:
            warnings += ("there is no room for the decoder while this is drawn: no previews",)
        seeds, waiting = settled.request.seeds, []
        for start in range(0, len(seeds), self.batch_size):
            group = seeds[start : start + self.batch_size]
            latents = yield from self._denoise(settled, conditions, clean, (group, start), previews)
            waiting += [(latents[n : n + 1], seed, start + n) for n, seed in enumerate(group)]
            if setup.residency is Residency.RESIDENT or start + self.batch_size >= len(seeds):
                # otherwise the transformer would have to be loaded again for every group
                self._end_stage(setup)
                for one, seed, number in waiting:
                    yield from self._decode(settled, (one, seed, number), warnings, setup.banded)
                waiting = []
        self._end_stage(setup)

    def _end_stage(self, setup: Setup) -> None:
        """Let go of what the stage before needed, where the plan says that there is no room for all.

        What is freed goes back to the system, or the next stage would come on top of it.
        """
        if setup.residency is not Residency.RESIDENT:
            release(self._tower, self._autoencoder, self._transformer)
            self._tower = self._autoencoder = self._transformer = None
            self.loras.detach()
            gc.collect()
            if self.placement.device.type == "cuda":
                torch.cuda.empty_cache()
        if self._is_large_on_cpu:
            trim()

    @property
    def _is_large_on_cpu(self) -> bool:
        return self.placement.device.type == "cpu" and self.variant.transformer.parameters >= _SMALL_PARAMETERS

    def _lean(self) -> AbstractContextManager[None]:
        """For the autoencoder of a large model: as little memory as the plan says, at a few per cent of its time."""
        return handing_back() if self._is_large_on_cpu and not self._streamed else nullcontext()

    def _encode_prompt(
        self, settled: Settled
    ) -> Generator[Progress, None, tuple[Tensor, Tensor | None, tuple[str, ...]]]:
        """(text, unconditional text or None, warnings)."""
        yield Progress("encode_prompt", 0, 1)
        tokens = self.tokenizer([settled.request.prompt])
        warnings = settled.warnings
        if tokens.lengths[0] > self.tokenizer.length:
            kept = f"{self.tokenizer.length} of {tokens.lengths[0]} tokens"
            warnings = (*warnings, f"the prompt is too long for {self.variant.name}: the first {kept} were used")
        text, unconditional = self._text(tokens), None
        if uses_two_passes(self.variant, settled.guidance):
            unconditional = self._text(self.tokenizer([""]))
        yield Progress("encode_prompt", 1, 1)
        return text, unconditional, warnings

    def _text(self, tokens: PromptTokens) -> Tensor:
        # one at a time: what is remembered of a prompt must not depend on what it was asked for with
        return self.recall.prompt(tokens, lambda: stages.encode_prompt(self.tower, tokens))

    def _encode_pictures(
        self, settled: Settled, banded: bool
    ) -> Generator[Progress, None, tuple[stages.ReferenceTokens | None, Tensor | None]]:
        """(references, clean latents (1, L, C) of the picture to begin with), each None if there is none."""
        pictures = [*settled.references, *([] if settled.canvas is None else [settled.canvas.picture])]
        if not pictures:
            return None, None
        yield Progress("encode_references", 0, len(pictures))
        latents = []
        for done, picture in enumerate(pictures, start=1):
            latents.append(self._latents(picture, banded))
            yield Progress("encode_references", done, len(pictures))
        clean = None if settled.canvas is None else grid_to_tokens(latents.pop())
        return stages.join_references(latents, settled.places) if latents else None, clean

    def _latents(self, picture: Picture, banded: bool) -> Tensor:
        with self._lean():
            encode = partial(stages.encode_reference, self.autoencoder, picture, banded)
            return self.recall.latents(picture, banded, encode)

    def _conditions(
        self, settled: Settled, text: Tensor, unconditional: Tensor | None, references: stages.ReferenceTokens | None
    ) -> Generator[Progress, None, stages.Conditions]:
        cache = None
        if references is not None and self.variant.caches_references:
            yield Progress("cache_references", 0, 1)
            loras, guidance = settled.request.loras, settled.guidance

            def compute(tokens: stages.ReferenceTokens = references) -> ReferenceCache:
                strengths = self.loras.beside(self.transformer, [loras])
                with self.loras.adapters.using(strengths):
                    return stages.cache_references(self.transformer, tokens, guidance)

            cache = self.recall.references(references, guidance, loras, compute)
            yield Progress("cache_references", 1, 1)
        return stages.Conditions(text, unconditional, settled.guidance, references, cache)

    def _denoise(
        self,
        settled: Settled,
        conditions: stages.Conditions,
        clean: Tensor | None,
        group: tuple[tuple[int, ...], int],
        previews: bool,
    ) -> Generator[Progress | Preview, None, Tensor]:
        """Final latents (B, L, C) of one group: its seeds and the number of its first picture.

        `clean` are those of the picture to begin with.
        """
        seeds, first = group
        grid, channels = settled.native.grid, self.variant.transformer.in_channels
        schedule = sigmas(settled.native.tokens, settled.steps)
        if settled.canvas is not None:
            schedule = from_strength(schedule, settled.canvas.strength)
        total = len(schedule) - 1
        yield Progress("denoise", 0, total, first)
        noise = torch.cat([initial_noise(seed, grid, channels) for seed in seeds]).to(self.placement.device)
        latents = noise if clean is None else noised(clean, noise, schedule[0])
        velocity = stages.velocity_of(self.transformer, conditions, grid)
        velocity = self.loras.switched(velocity, self.transformer, settled.request.loras)
        adjust = _adjust(settled, clean, noise)
        for done, step in enumerate(euler_steps(velocity, latents, schedule, adjust), start=1):
            latents = step.latents_BLC
            yield Progress("denoise", done, total, first)
            for row in range(len(seeds) if previews else 0):
                small = stages.preview(self.autoencoder, step.clean_BLC[row : row + 1], grid)
                yield Preview(first + row, done, total, small)
        return latents

    def _decode(
        self, settled: Settled, drawn: tuple[Tensor, int, int], warnings: tuple[str, ...], banded: bool
    ) -> Events:
        """One picture; `drawn` is (latents (1, L, C), seed, number of the picture)."""
        latents_1LC, seed, number = drawn
        yield Progress("decode", 0, 1, number)
        with self._lean():
            picture = stages.decode(self.autoencoder, latents_1LC, settled.native.grid, banded)
        if settled.canvas is not None:
            picture = settled.canvas.finish(picture)
        elif settled.native != settled.size:
            picture = cover(picture, settled.size)
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
            elif self._in_turn:
                leave_as_stored(self._tower.modules())
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


def _silently(events: Generator[Progress, None, T]) -> Generator[float, None, T]:
    """The same work, for somebody who only counts other steps."""
    while True:
        try:
            next(events)
        except StopIteration as done:
            found: T = done.value
            return found
        yield 0.0


def _adjust(settled: Settled, clean_1LC: Tensor | None, noise_BLC: Tensor) -> Adjust | None:
    """What keeps a part of the picture as it is after each step, where the request wants that."""
    if settled.canvas is None or settled.canvas.mask_1L1 is None or clean_1LC is None:
        return None
    return keep_outside(settled.canvas.mask_1L1.to(noise_BLC.device), clean_1LC, noise_BLC)


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
