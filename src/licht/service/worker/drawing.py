"""What a worker needs of an engine, and Licht's own behind that interface."""

import logging
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from licht.core.errors import EndpointFailed, InvalidCheckpoint, LichtError, NotAvailable
from licht.core.protocols import Ranker
from licht.core.request import ImageRequest, Preview, Progress
from licht.service.queue.register import About
from licht.service.worker.writing import TurnByTurn
from licht.upsample.ask import Upsampled, Upsampler, upsample

if TYPE_CHECKING:
    from licht.generate import Delivery, Model, Result


@dataclass(frozen=True, slots=True)
class Drawn:
    """One released picture: the bytes of a file in the format that was asked for, sizes in pixels.

    `prompt` is the one that was really used. `candidates` is how many were drawn to choose this one from.
    """

    data: bytes
    file_format: str
    width: int
    height: int
    seed: int
    steps: int
    guidance: float | None
    prompt: str
    prompt_upsampled: bool = False
    warnings: tuple[str, ...] = ()
    candidates: int = 1
    ranker: str | None = None
    """What chose it, where there were several."""
    caches: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """Hits and misses of each of the engine's caches while it was drawn."""


@dataclass(frozen=True, slots=True)
class PreviewDrawn:
    """The released picture in the making after `step` of `total` steps: the bytes of a PNG file, sizes in pixels."""

    step: int
    total: int
    width: int
    height: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Manner:
    """How a picture is handed out: PNG, JPEG or WEBP, its finish, and for whom.

    `tolerance` goes from 0 (the policy refuses most) to 5. `upsample` has the prompt written out first.
    """

    file_format: str = "PNG"
    tolerance: int = 2
    finish: str = "none"
    upsample: bool = False
    quality: int | None = None
    """Of JPEG and WebP, 1 to 100; None is the usual one."""
    policy: str | None = None
    """How much the door does for this caller: off, default, strict; None is the model's own policy."""
    payload: int | None = None
    """What the watermark is to hold; None draws something."""


_LOG: Final = logging.getLogger(__name__)
Events: TypeAlias = Generator[Progress | PreviewDrawn | Drawn, None, None]


class Drawer(Protocol):
    """An engine behind the door of a policy. Closing the generator stops the work within one step."""

    @property
    def name(self) -> str:
        """The weights that really draw."""
        ...

    @property
    def licence(self) -> str:
        """The licence of those weights."""
        ...

    @property
    def about(self) -> About:
        """What the weights are made for."""
        ...

    def draw(self, request: ImageRequest, manner: Manner) -> Events:
        """Draw `request`; of several seeds only the best picture comes out.

        Raises errors of the tree: `Refused` before or after the work, `InvalidRequest`.
        """
        ...


class ModelDrawer:
    """Licht's own models."""

    def __init__(self, model: "Model", ranker: Ranker | None = None, upsampler: Upsampler | None = None) -> None:
        """Draw with `model`, under its policy.

        Without a `ranker` there is nothing to choose by: one seed is drawn. Without an `upsampler` prompts stay as
        they are.
        """
        self._model = model
        self._ranker = ranker
        self._upsampler = upsampler

    @property
    def name(self) -> str:
        """The weights that really draw."""
        return self._model.name

    @property
    def licence(self) -> str:
        """The licence of those weights."""
        return self._model.engine.variant.licence

    @property
    def about(self) -> About:
        """What the weights are made for."""
        variant = self._model.engine.variant
        return About(
            default_steps=variant.default_steps,
            default_guidance=variant.default_guidance,
            takes_guidance=variant.takes_guidance,
            max_references=variant.max_references,
            width=variant.default_size.width,
            height=variant.default_size.height,
        )

    def draw(self, request: ImageRequest, manner: Manner) -> Events:
        """Draw `request` through the one door. What means nothing to the weights is left out, aloud."""
        request, warnings = self._suited(request)
        written = yield from self._written_out(request, manner)
        request, warnings = replace(request, prompt=written.prompt), (*warnings, *written.warnings)
        # a view of the same engine, with this caller's policy
        model = self._model.under(self._model.policy.moved(manner.policy, manner.tolerance))
        results: list[Result] = []
        cache = self._model.engine.recall.cache
        hits, misses = cache.hits, cache.misses
        prompt = model.settle_prompt(request).text
        with _closing(model.stream(request, manner.file_format, _delivery(manner, self._ranker))) as events:
            for event in events:
                if isinstance(event, Progress):
                    yield _overall(event, len(request.seeds))
                elif isinstance(event, Preview):
                    image = event.image
                    yield PreviewDrawn(event.step, event.total, image.width, image.height, event.file)
                else:
                    results.append(event)
        if not results:
            raise LichtError("the engine ended without a picture")
        best = results[0]
        yield Drawn(
            data=best.released.data,
            file_format=best.released.file_format,
            width=best.width,
            height=best.height,
            seed=best.seed,
            steps=best.steps,
            guidance=best.guidance,
            prompt=prompt,
            prompt_upsampled=written.prompt != written.asked,
            warnings=(*warnings, *best.warnings),
            candidates=best.candidates,
            ranker=best.ranker,
            caches={"encoded": (cache.hits - hits, cache.misses - misses)},
        )

    def _written_out(self, request: ImageRequest, manner: Manner) -> Generator[Progress, None, Upsampled]:
        """The prompt, upsampled if that is wanted. A language model that fails costs the picture nothing else."""
        as_it_is = Upsampled(request.prompt, request.prompt)
        if not manner.upsample or self._upsampler is None:
            return as_it_is
        # the door is asked first: what it refuses is shown to no language model
        self._model.under(self._model.policy.moved(manner.policy, manner.tolerance)).check(request)
        yield Progress("upsample", 0, 1)
        upsampler, pictures = self._upsampler, [each.picture for each in request.references]
        try:
            with upsampler.turn() if isinstance(upsampler, TurnByTurn) else nullcontext():
                written = upsample(request.prompt, pictures, upsampler)
        except (EndpointFailed, NotAvailable, InvalidCheckpoint) as error:
            # its own words name addresses and folders that are the operator's business
            _LOG.warning("the prompt was not written out", extra={"reason": error.message})
            return replace(as_it_is, warnings=("the prompt was used as it is: the language model does not answer",))
        yield Progress("upsample", 1, 1)
        return written

    def _suited(self, request: ImageRequest) -> tuple[ImageRequest, tuple[str, ...]]:
        """`request` without what these weights cannot use, and what the caller is to hear about that."""
        warnings: list[str] = []
        variant = self._model.engine.variant
        if request.guidance is not None and not variant.takes_guidance:
            warnings.append(f"{variant.name} is distilled and takes no guidance scale: it was left out")
            request = replace(request, guidance=None)
        if len(request.seeds) > 1 and self._ranker is None:
            warnings.append("no ranker is configured to choose between several candidates: one was drawn")
            request = replace(request, seeds=request.seeds[:1])
        return request, tuple(warnings)


def _delivery(manner: Manner, ranker: Ranker | None) -> "Delivery":
    from licht.finish import parse_finish
    from licht.generate import Delivery

    return Delivery(finish=parse_finish(manner.finish), quality=manner.quality, payload=manner.payload, ranker=ranker)


def _overall(event: Progress, pictures: int) -> Progress:
    """Progress over all candidates as if they were one picture, so that the bar does not run backwards."""
    if pictures == 1 or event.stage not in ("denoise", "decode"):
        return event
    if event.stage == "decode":
        return replace(event, stage="denoise", done=event.picture + 1, total=pictures)
    return replace(event, done=event.picture * event.total + event.done, total=event.total * pictures)


@contextmanager
def _closing(events: "Iterator[Progress | Preview | Result]") -> "Iterator[Iterator[Progress | Preview | Result]]":
    """A plain iterator in its signature, a generator in fact: closing it stops the engine."""
    try:
        yield events
    finally:
        close = getattr(events, "close", None)
        if close is not None:
            close()
