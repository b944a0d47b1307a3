"""What an operator brings along: `python:module:function` in a setting names a function that makes it."""

import importlib
from collections.abc import Callable
from typing import Any, Final

from licht.core.errors import InvalidSettings, LichtError

PREFIX: Final = "python:"


def is_plugin(source: str) -> bool:
    """Whether a setting names a function."""
    return source.startswith(PREFIX)


def plugin(source: str, setting: str) -> Callable[..., Any]:
    """The function behind `python:module:function`. Raises `InvalidSettings` if there is none."""
    module, _, name = source.removeprefix(PREFIX).partition(":")
    try:
        found = getattr(importlib.import_module(module), name)
    except LichtError:
        raise
    except Exception as error:  # whatever a stranger's module raises while it is imported
        raise InvalidSettings(
            f"{setting} is {source!r}, which cannot be loaded ({type(error).__name__}); use python:module:function"
        ) from error
    if not callable(found):
        raise InvalidSettings(f"{setting} is {source!r}, which is no function; use python:module:function")
    made: Callable[..., Any] = found
    return made
