"""Folders of pictures and captions through the same screens as requests: training data, before anything is learnt."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from licht.core.errors import InvalidImage, InvalidPrompt, InvalidSettings, Refused
from licht.core.request import ImageRequest
from licht.safety.images import open_reference

if TYPE_CHECKING:
    from licht.safety.policy import Policy

PICTURES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
CAPTIONS: Final = (".txt", ".caption")
METADATA: Final = ".jsonl"
_LISTED: Final = 3


@dataclass(frozen=True, slots=True)
class RefusedFile:
    """A file that a screen refuses, and why; `unseen` if it is a picture that could not be opened."""

    path: Path
    reason: str
    unseen: bool = False


def screened_files(folder: Path) -> list[Path]:
    """What of `folder` is looked at: pictures, captions, and JSON lines with texts in them."""
    known = (*PICTURES, *CAPTIONS, METADATA)
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in known and path.is_file())


def refused_files(
    folder: Path, policy: "Policy", on_file: Callable[[int, int], None] | None = None
) -> list[RefusedFile]:
    """Every file in `folder` that `policy` refuses; `on_file` is told how many of how many have been looked at."""
    from licht.safety.policy import admit

    files, found = screened_files(folder), []
    for number, path in enumerate(files, start=1):
        try:
            if path.suffix.lower() in PICTURES:
                admit(ImageRequest("", (0,), (open_reference(path),)), policy)
            else:
                for text in _texts(path):
                    admit(ImageRequest(text, (0,)), policy)
        except (Refused, InvalidImage, InvalidPrompt) as error:
            found.append(RefusedFile(path, error.message, isinstance(error, InvalidImage)))
        if on_file is not None:
            on_file(number, len(files))
    return found


def require_clean(folder: Path, policy: "Policy", readable: Callable[[Path], bool]) -> None:
    """Raise `InvalidSettings` with the first names if `policy` refuses anything in `folder`.

    What can be opened neither here nor by what learns, as `readable` says, teaches nothing: it is left to the settings
    for broken pictures.
    """
    refused = [each for each in refused_files(folder, policy) if not each.unseen or readable(each.path)]
    if not refused:
        return
    named = "; ".join(f"{each.path.name}: {each.reason}" for each in refused[:_LISTED])
    more = f" and {len(refused) - _LISTED} more" if len(refused) > _LISTED else ""
    raise InvalidSettings(
        f"{folder} holds {len(refused)} file{'s' * (len(refused) > 1)} that the filters refuse ({named}{more}); remove what is named (`licht screen` "
        "lists all of it), or train with --policy off",
        field="data.streams",
    )


def _texts(path: Path) -> Iterator[str]:
    """The captions in a file: its whole text, or every string in its JSON lines."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if path.suffix.lower() != METADATA:
        yield text.strip()
        return
    for line in text.splitlines():
        try:
            yield "\n".join(_strings(json.loads(line))) if line.strip() else ""
        except (ValueError, RecursionError):
            yield line


def _strings(value: Any) -> Iterator[str]:  # noqa: ANN401 - whatever stands in the file
    if isinstance(value, str):
        yield value
    elif isinstance(value, list | dict):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _strings(each)
