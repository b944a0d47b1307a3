"""Progress bars on stderr, only where someone can see them."""

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
    """One line that follows the stages of a request, and one above it for many jobs."""

    def __init__(self, pictures: int, jobs: int = 0) -> None:
        """`pictures` is how many are drawn in all; from two on, they are counted. `jobs` asks for a line of jobs."""
        self._pictures, self._before = pictures, 0
        self._console = Console(stderr=True)
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._jobs = self._bars.add_task("jobs", total=jobs) if jobs else None
        self._task = self._bars.add_task("loading", total=None)

    def begin(self, before: int) -> None:
        """A request begins; `before` pictures of earlier ones are finished."""
        self._before = before

    def show(self, progress: Progress) -> None:
        """Move the line to where `progress` is."""
        label = _LABELS.get(progress.stage, progress.stage.replace("_", " "))
        if self._pictures > 1 and progress.stage in ("denoise", "decode"):
            label = f"{label} {self._before + progress.picture + 1}/{self._pictures}"
        if progress.done == 0:
            self._bars.reset(self._task, total=progress.total, description=label)
        self._bars.update(self._task, completed=progress.done, total=progress.total, description=label)

    def job_done(self) -> None:
        """One more job has ended."""
        if self._jobs is not None:
            self._bars.advance(self._jobs)

    def say(self, line: str) -> None:
        """Print a line above the bars."""
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def __enter__(self) -> "ProgressBar":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
