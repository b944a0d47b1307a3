"""Where models are found: built in, in the models folder, or at a path."""

import os
from dataclasses import replace
from pathlib import Path

import platformdirs

from licht.checkpoint.assets import built_in
from licht.checkpoint.folder import ModelFiles, read_file, read_folder
from licht.checkpoint.registry import MODEL_NAME, Registered, find_registered
from licht.core.errors import InvalidRequest, UnknownModel
from licht.model.variants import VARIANTS

DEFAULT_MODEL = "nano"


def models_folder() -> Path:
    """Where downloaded and registered models live: `LICHT_MODELS`, else the platform's data folder."""
    configured = os.environ.get("LICHT_MODELS")
    return Path(configured) if configured else platformdirs.user_data_path("licht") / "models"


def find_model(
    model: str, kind: str | None = None, autoencoder: Path | None = None, text_encoder: Path | None = None
) -> ModelFiles:
    """Find a model by name, folder or file, and read its headers.

    `autoencoder` and `text_encoder` complete a transformer that lies in a single file. Raises `UnknownModel` with
    what can be used instead.
    """
    builtin = built_in()
    name = model.lower().removeprefix("flux.2-")
    installed = models_folder() / name
    try:
        path = Path(model).expanduser()
        is_installed = MODEL_NAME.fullmatch(name) is not None and installed.is_dir()
        is_file, is_folder = path.is_file(), bool(model) and path.is_dir()
    except (OSError, RuntimeError, ValueError) as error:  # a name too long, an unknown user's home, a zero byte
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise UnknownModel(
            f"{model[:100]!r} cannot be a model, folder or file ({reason}); use a name or a path", field="model"
        ) from error
    folder = builtin.get(model, installed if is_installed else path if is_folder else None)
    if folder is not None and (autoencoder or text_encoder):
        raise InvalidRequest(
            f"{model} is a whole model; --vae and --text-encoder only complete a transformer in a single file",
            field="vae" if autoencoder else "text_encoder",
        )
    if folder is not None:
        return read_folder(folder, kind or (name if folder == installed and name in VARIANTS else None))
    entry = find_registered(models_folder(), name)
    if entry is not None and not is_file:
        return _read_registered(name, entry, kind, autoencoder, text_encoder)
    if is_file:
        return read_file(path, kind, autoencoder, text_encoder)
    if name in VARIANTS:
        raise UnknownModel(
            f"{name} is not installed: run `licht models get {name}`, copy the folder of "
            f"{VARIANTS[name].repository} to {installed}, or pass the path of a folder or file",
            field="model",
        )
    names = ", ".join([*builtin, *VARIANTS])
    raise UnknownModel(f"there is no model, folder or file {model!r}; use a path, or one of {names}", field="model")


def _read_registered(
    name: str, entry: Registered, kind: str | None, autoencoder: Path | None, text_encoder: Path | None
) -> ModelFiles:
    """What was registered; what the caller names counts more."""
    kind = kind or entry.variant
    if entry.path.is_dir():
        files = read_folder(entry.path, kind)
    elif entry.path.is_file():
        files = read_file(entry.path, kind, autoencoder or entry.vae, text_encoder or entry.text_encoder)
    else:
        raise UnknownModel(
            f"{name} is registered as {entry.path}, which is not there; put it back, or `licht models remove {name}`",
            field="model",
        )
    return replace(files, variant=replace(files.variant, name=name))
