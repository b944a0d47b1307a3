"""The log of a run: one JSON object a line, each step once."""

import json
from collections.abc import Iterator
from pathlib import Path

from licht.training.files import not_written, write_text

Line = dict[str, float]


def log_path(run: Path) -> Path:
    """Where a run's log is."""
    return run / "log.jsonl"


def append_line(run: Path, line: Line) -> None:
    """Append one line. Raises `OutputFailed`."""
    try:
        with log_path(run).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
    except OSError as error:
        raise not_written(log_path(run), error) from error


def read_log(run: Path) -> list[Line]:
    """Every line that a run has logged, oldest first. Lines that a kill or a full disk cut short are left out."""
    return [line for line in _lines(run) if line is not None]


def go_back_to(run: Path, step: int, finished: bool) -> None:
    """Take away what is going to be logged again when the run goes on from `step`, and lines that were cut short.

    Losses of a step are logged before it is done, samples after it; those of a `finished` run are drawn again.
    Raises `OutputFailed`.
    """
    lines = list(_lines(run))
    kept = [line for line in lines if line is not None and _stays(line, step, finished)]
    if len(kept) == len(lines):
        return
    try:
        write_text(log_path(run), "".join(json.dumps(line) + "\n" for line in kept))
    except OSError as error:
        raise not_written(log_path(run), error) from error


def _stays(line: Line, step: int, finished: bool) -> bool:
    return line["step"] < step or (line["step"] == step and "loss" not in line and not finished)


def _lines(run: Path) -> Iterator[Line | None]:
    """Every line, or None where it is not whole."""
    path = log_path(run)
    text = path.read_text("utf-8", "replace") if path.is_file() else ""
    for line in text.splitlines(keepends=True):
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        yield found if isinstance(found, dict) and "step" in found and line.endswith("\n") else None
