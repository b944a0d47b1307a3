"""What a worker needs of an engine, and Licht's own behind that interface."""

from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from licht.core.request import ImageRequest, Preview, Progress

if TYPE_CHECKING:
    from licht.generate import Model


@dataclass(frozen=True, slots=True)
class Drawn:
    """One released picture: the bytes of a file in the format that was asked for, sizes in pixels."""

    data: bytes
    file_format: str
    width: int
    height: int
    seed: int
    steps: int
    guidance: float | None
    warnings: tuple[str, ...] = ()


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

    def draw(self, request: ImageRequest, file_format: str, tolerance: int) -> Generator[Progress | Drawn, None, None]:
        """Draw `request`. Raises errors of the tree: `Refused` before or after the work, `InvalidRequest`.

        `tolerance` goes from 0 (the policy refuses most) to 5.
        """
        ...


class ModelDrawer:
    """Licht's own models."""

    def __init__(self, model: "Model") -> None:
        """Draw with `model`, under its policy."""
        self._model = model

    @property
    def name(self) -> str:
        """The weights that really draw."""
        return self._model.name

    @property
    def licence(self) -> str:
        """The licence of those weights."""
        return self._model.engine.variant.licence

    def draw(self, request: ImageRequest, file_format: str, tolerance: int) -> Generator[Progress | Drawn, None, None]:
        """Draw `request` through the one door. A guidance scale that means nothing to the weights is left out, aloud."""
        warnings: tuple[str, ...] = ()
        variant = self._model.engine.variant
        if request.guidance is not None and not variant.takes_guidance:
            warnings = (f"{variant.name} is distilled and takes no guidance scale: it was left out",)
            request = replace(request, guidance=None)
        # a view of the same engine, with this caller's tolerance
        model = type(self._model)(self._model.engine, replace(self._model.policy, tolerance=tolerance))
        events = model.stream(request, file_format)
        try:
            for event in events:
                if isinstance(event, Progress):
                    yield event
                elif not isinstance(event, Preview):
                    yield Drawn(
                        data=event.released.data,
                        file_format=event.released.file_format,
                        width=event.width,
                        height=event.height,
                        seed=event.seed,
                        steps=event.steps,
                        guidance=event.guidance,
                        warnings=(*warnings, *event.warnings),
                    )
        finally:
            # a plain iterator in its signature, a generator in fact: closing it stops the engine
            close = getattr(events, "close", None)
            if close is not None:
                close()
