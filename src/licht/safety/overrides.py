"""What callers may do differently: one table a key, in a TOML file that the operator keeps."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from licht.core.errors import InvalidSettings

LEVELS: Final = ("off", "default", "strict")
_SHAPE: Final = (
    f'use tables such as [keys."KEY ID"] with policy ({", ".join(LEVELS)}), highest_tolerance and lowest_tolerance '
    "(0 to 5)"
)
_FIELDS: Final = ("policy", "highest_tolerance", "lowest_tolerance")
_MOST: Final = 5


@dataclass(frozen=True, slots=True)
class Override:
    """The policy of a key, None for that of everybody, and its tolerances: what it asks for is moved into them."""

    policy: str | None = None
    highest_tolerance: int = _MOST
    lowest_tolerance: int = 0

    def settled(self, tolerance: int) -> int:
        """The tolerance that counts where `tolerance` is asked for."""
        return max(self.lowest_tolerance, min(self.highest_tolerance, tolerance))


def read_overrides(path: Path | None) -> Mapping[str, Override]:
    """Key id -> override; `default` is for keys without a table. Raises `InvalidSettings`."""
    if path is None:
        return MappingProxyType({})
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidSettings(f"{path} cannot be read as TOML ({type(error).__name__}); {_SHAPE}") from error
    keys = tables.get("keys", {})
    if set(tables) - {"keys"} or not isinstance(keys, dict):
        raise InvalidSettings(f"{path} holds something else than keys; {_SHAPE}")
    return MappingProxyType({name: _override(path, name, table) for name, table in keys.items()})


def _override(path: Path, name: str, table: Any) -> Override:  # noqa: ANN401 - whatever stands in the file
    if not isinstance(table, dict) or set(table) - set(_FIELDS):
        raise InvalidSettings(f"the table of key {name} in {path} has unknown entries; {_SHAPE}")
    for field, value in table.items():
        if field == "policy":
            if value not in LEVELS:
                raise InvalidSettings(f"the table of key {name} in {path} holds the policy {value!r}; {_SHAPE}")
        elif not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MOST:
            raise InvalidSettings(f"the table of key {name} in {path} holds {value!r}; {_SHAPE}")
    made = Override(**table)
    if made.lowest_tolerance > made.highest_tolerance:
        raise InvalidSettings(f"the table of key {name} in {path} has its lowest above its highest; {_SHAPE}")
    return made
