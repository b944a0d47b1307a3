"""Small files of runs and prepared data: written whole or not at all, and what prepared data say of themselves."""

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final

from torch import nn

from licht.core.errors import InvalidSettings, OutputFailed
from licht.training.config import difference

Description = Mapping[str, object]
"""What prepared data are, as JSON: data prepared with another description are other data."""
DIGEST_DIGITS: Final = 16
"""So much of a SHA-256 tells data apart, in hexadecimal digits."""


def not_written(place: Path, error: Exception) -> OutputFailed:
    """The error to raise for a file or folder that could not be written."""
    return OutputFailed(f"{place} cannot be written ({error}); make room or choose another place, then run again")


def write_text(path: Path, text: str) -> None:
    """Write a file that is either as it was or complete, whenever this process ends. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def refuse_other_data(path: Path, wanted: Description, needed: Collection[str] = ()) -> None:
    """Raises `InvalidSettings` with the differences if the description at `path` is not what is `wanted`.

    What one of them does not mention, or gives as null, says nothing: prepared data are older than some fields. Only what is
    `needed` must be mentioned.
    """
    if not path.is_file():
        return
    try:
        known = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise InvalidSettings(f"{path} cannot be read ({error}); delete it, or the whole folder") from error
    shared = {name for name in wanted if wanted[name] is not None and (known.get(name) is not None or name in needed)}
    ours, theirs = (json.dumps({name: each.get(name) for name in shared}) for each in (wanted, known))
    differing = difference(ours, theirs)
    if differing:
        raise InvalidSettings(
            f"{path.parent} was prepared for something else ({'; '.join(differing)}); delete it or use another folder"
        )


def describe_new(path: Path, wanted: Description, progress: Path) -> None:
    """Say at `path` what is going to be prepared, if nothing is yet. Raises `OSError`.

    What was prepared before and does not say what it is stays as it is: nobody knows more about it now.
    """
    if not progress.is_file():
        write_text(path, json.dumps(wanted))


def weights_digest(module: nn.Module) -> str:
    """The same for the same weights, whatever file they came from."""
    found = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        found.update(f"{name} {tuple(tensor.shape)}".encode())
        found.update(tensor.detach().float().cpu().numpy().tobytes())
    return found.hexdigest()[:DIGEST_DIGITS]


def text_digest(text: str) -> str:
    """The same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]
