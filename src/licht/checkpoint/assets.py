"""The models that ship inside the package."""

import importlib.resources
from pathlib import Path


def built_in() -> dict[str, Path]:
    """Their names and folders."""
    assets = Path(str(importlib.resources.files("licht").joinpath("assets")))
    return {path.name: path for path in sorted(assets.iterdir()) if (path / "licht.json").is_file()}
