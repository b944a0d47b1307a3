"""Models that lie somewhere else on the disk: names that stand for a folder or file, without a copy of it."""

import json
import os
import re
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from licht.core.errors import InvalidRequest, InvalidSettings, OutputFailed, UnknownModel

MODEL_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_SUFFIX: Final = ".registered.json"


class Registered(BaseModel):
    """A folder or file under a name. `variant`, `vae` and `text_encoder` say what the file does not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: Path
    variant: str | None = None
    vae: Path | None = None
    text_encoder: Path | None = None


def registered(models: Path) -> dict[str, Registered]:
    """Every registered model in the models folder, by name. Raises `InvalidSettings` for a broken entry."""
    names = (path.name.removesuffix(_SUFFIX) for path in sorted(models.glob(f"*{_SUFFIX}")))
    found = ((name, find_registered(models, name)) for name in names)
    return {name: entry for name, entry in found if entry is not None}


def find_registered(models: Path, name: str) -> Registered | None:
    """The entry of one name, or None. Raises `InvalidSettings` for a broken one."""
    path = _entry(models, name)
    if MODEL_NAME.fullmatch(name) is None or not path.is_file():
        return None
    try:
        return Registered.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise InvalidSettings(
            f"{path} is no entry of a registered model; remove it and register {name} again", field="model"
        ) from error


def register(models: Path, name: str, entry: Registered, overwrite: bool = False) -> Path:
    """Write the entry atomically and return its path. Raises `InvalidRequest`, `OutputFailed`."""
    if MODEL_NAME.fullmatch(name) is None:
        raise InvalidRequest(
            f"{name!r} is no name for a model; use lower-case letters, digits, '.', '_' and '-'", field="name"
        )
    path = _entry(models, name)
    if (path.exists() or (models / name).exists()) and not overwrite:
        raise InvalidRequest(f"there is a model {name} already; choose another name or remove it first", field="name")
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    try:
        models.mkdir(parents=True, exist_ok=True)
        with temporary.open("x", encoding="utf-8") as file:
            file.write(json.dumps(entry.model_dump(mode="json", exclude_none=True), indent=1) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputFailed(f"{path} cannot be written ({error.strerror or error}); make room there") from error
    finally:
        with suppress(OSError):
            temporary.unlink()
    return path


def unregister(models: Path, name: str) -> None:
    """Forget the name; the model's own files stay. Raises `UnknownModel` if the name is not registered."""
    try:
        _entry(models, name).unlink()
    except OSError as error:
        raise UnknownModel(f"{name} is not a registered model; `licht models` lists the names", field="name") from error


def _entry(models: Path, name: str) -> Path:
    return models / f"{name}{_SUFFIX}"
