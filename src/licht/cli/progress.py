"""A progress bar on stderr, only where someone can see it."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from licht.core.request import Progress

_LABELS = {
    "encode_prompt": "reading the prompt",
    "encode_references": "encoding references",
    "cache_references": "caching references",
    "denoise": "drawing",
    "decode": "decoding",
}


class ProgressBar:
    """One line that follows the stages of a request."""

    def __init__(self, pictures: int) -> None:
        """`pictures` is how many are drawn in all; from two on, they are counted."""
        self._pictures, self._before = pictures, 0
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not Console(stderr=True).is_terminal,
        )
        self._task = self._bars.add_task("loading", total=None)

    def begin(self, before: int) -> None:
        """A request begins; `before` pictures of earlier ones are finished."""
        self._before = before

    def show(self, progress: Progress) -> None:
        """Move the line to where `progress` is."""
        label = _LABELS[progress.stage]
        if self._pictures > 1 and progress.stage in ("denoise", "decode"):
            label = f"{label} {self._before + progress.picture + 1}/{self._pictures}"
        if progress.done == 0:
            self._bars.reset(self._task, total=progress.total, description=label)
        self._bars.update(self._task, completed=progress.done, total=progress.total, description=label)

    def __enter__(self) -> "ProgressBar":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
