"""The settings of the command line: one TOML file with the defaults that somebody prefers.

A table is a verb, a key an option of it: `[generate]` and `model = "klein-4b"`. What stands on the command line counts
more. `licht serve` has a file of its own, which is named with --settings.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from licht.core.errors import InvalidSettings

if TYPE_CHECKING:
    import typer

FILE_VARIABLE: Final = "LICHT_SETTINGS"
_MODELS_KEY: Final = "models_folder"


def settings_file() -> Path:
    """Where the settings are: `LICHT_SETTINGS`, else `licht.toml` in the platform's folder for configuration."""
    configured = os.environ.get(FILE_VARIABLE)
    if configured:
        return Path(configured)
    import platformdirs

    return platformdirs.user_config_path("licht") / "licht.toml"


def preferred(app: "typer.Typer") -> dict[str, Any] | None:
    """The defaults in the settings file, as the command line takes them; None without a file.

    Raises `InvalidSettings` for a file that cannot be read, and for tables and keys that no verb has.
    """
    path = settings_file()
    try:
        data = tomllib.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        if os.environ.get(FILE_VARIABLE):
            raise InvalidSettings(f"{FILE_VARIABLE} names {path}, which is not there; correct it") from None
        return None
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read ({error.strerror}); check it") from error
    except ValueError as error:  # TOMLDecodeError, and bytes that are no text
        raise InvalidSettings(f"{path} is not TOML: {error}; correct it there") from error
    folder = data.pop(_MODELS_KEY, None)
    if folder is not None:
        if not isinstance(folder, str):
            raise InvalidSettings(f"{path}: {_MODELS_KEY} must be a text", field=_MODELS_KEY)
        os.environ.setdefault("LICHT_MODELS", str(Path(folder).expanduser()))
    from typer.main import get_command

    return _defaults(data, get_command(app), path, "")


def _defaults(data: Mapping[str, Any], command: Any, path: Path, prefix: str) -> dict[str, Any]:  # noqa: ANN401 - click's
    """The values by the names of the parameters; tables by the names of the verbs."""
    verbs = getattr(command, "commands", {})
    options = {option: parameter for parameter in command.params for option in parameter.opts}
    found: dict[str, Any] = {}
    for name, value in data.items():
        parameter = options.get(f"--{name.replace('_', '-')}")
        if isinstance(value, dict) and name in verbs:
            found[name] = _defaults(value, verbs[name], path, f"{prefix}{name}.")
        elif parameter is not None and name not in ("version", "help") and not isinstance(value, dict):
            found[parameter.name] = value
        else:
            what = f"option --{name.replace('_', '-')} of licht {prefix.rstrip('.')}".rstrip() if prefix else "verb"
            raise InvalidSettings(f"{path}: {prefix}{name} is no {what}; see licht --help", field=f"{prefix}{name}")
    return found
