"""Licht: FLUX.2 as a system that anyone can own.

>>> import licht
>>> model = licht.load("nano")
>>> model.generate("a small matte blue cube on a gray floor, light from the left", seed=1)[0].save("cube.png")
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from licht.client import Client
    from licht.generate import Model

__version__ = "0.1.0"
__all__ = ["Client", "__version__", "load"]


def __getattr__(name: str) -> type[Client]:
    if name != "Client":
        raise AttributeError(f"module 'licht' has no attribute {name!r}")
    # imported here: only those who draw elsewhere pay for an HTTP client
    from licht.client import Client

    return Client


def load(
    model: str | Path = "nano",
    *,
    variant: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    quant: str = "none",
    ignore_plan: bool = False,
    policy: str = "default",
    autoencoder: str | Path | None = None,
    text_encoder: str | Path | None = None,
    cache: str | Path | None = None,
) -> Model:
    """Open a model by name, folder or file; weights are read when they are first needed.

    `variant` says what kind a checkpoint is where it does not say so itself. `autoencoder` and `text_encoder`
    complete a transformer in a single file. `quant` quantises the large matrices while they are read: fp8, int8, q4 or
    nvfp4; `ignore_plan` draws even what is planned not to fit into memory. `cache` is a folder in which encoded prompts
    and references outlive the process. Raises `UnknownModel`, `AmbiguousModel`, `InvalidCheckpoint`.
    """
    # imported here: the service's API process and `licht --help` must not pay for torch
    from licht.checkpoint.catalog import find_model
    from licht.engine.cache import CacheChoice
    from licht.engine.engine import Choice, Engine
    from licht.generate import Model
    from licht.safety.policy import parse_policy

    settled = parse_policy(policy)
    parts = (Path(part) if part is not None else None for part in (autoencoder, text_encoder))
    choice = Choice(device, dtype, quant, ignore_plan, CacheChoice(folder=None if cache is None else Path(cache)))
    return Model(Engine(find_model(str(model), variant, *parts), choice), settled)
