"""The LoRAs of one engine: read when they are first asked for, kept while there is room, switched for every call."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from licht.checkpoint.lora import LoraFile, read_lora
from licht.core.errors import InvalidCheckpoint
from licht.core.request import LoraUse
from licht.model.lora import Adapters, Strengths
from licht.model.transformer import Flux2Transformer
from licht.model.variants import TransformerConfig
from licht.sampling.solvers import Velocity

KEPT: Final = 16
"""So many adapters stay ready; the one that was not used for the longest time goes first."""


class LoraShelf:
    """Adapter files by path, and the adapters that they became beside the transformer."""

    def __init__(self, config: TransformerConfig) -> None:
        """Adapters must fit a transformer of this size."""
        self._config = config
        self._files: OrderedDict[str, LoraFile] = OrderedDict()
        self._adapters: Adapters | None = None

    def read(self, uses: Sequence[LoraUse]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Read what is asked for, before any other work: (notes, warnings). Raises `InvalidCheckpoint`."""
        notes: list[str] = []
        warnings: list[str] = []
        for use in uses:
            key = _key(use)
            if key not in self._files:
                self._files[key] = read_lora(use.path, self._config, use.allow_partial)
            self._files.move_to_end(key)
            file = self._files[key]
            (warnings if file.unknown or file.changes_nothing else notes).append(
                f"{file.report}, strength {use.strength:g}"
            )
        while len(self._files) > max(KEPT, len(uses)):
            self._forget(next(iter(self._files)))
        return tuple(notes), tuple(warnings)

    def memory_bytes(self, uses: Sequence[LoraUse], device: torch.device, dtype: torch.dtype) -> int:
        """What they take on the device. Where that is main memory, what was read, in float32, lies there as well."""
        self.read([use for use in uses if _key(use) not in self._files])
        elements = sum(self._files[_key(use)].adapter.elements for use in uses)
        kept = 4 if device.type == "cpu" and dtype != torch.float32 else 0
        return elements * (dtype.itemsize + kept)

    def beside(self, transformer: Flux2Transformer, rows: Sequence[Sequence[LoraUse]]) -> list[Strengths]:
        """Attach what was read beside `transformer`; for each row of a batch, the strengths to pass to `using`."""
        if self._adapters is None or self._adapters.network is not transformer:
            self._adapters = Adapters(transformer)
        weight = transformer.img_in.weight
        for use in (use for row in rows for use in row):
            key = _key(use)
            if key not in self._adapters.names:
                if key not in self._files:
                    self.read([use])
                self._adapters.add(key, self._files[key].adapter, weight.dtype, weight.device)
        return [{_key(use): use.strength for use in row} for row in rows]

    def switched(self, velocity: Velocity, transformer: Flux2Transformer, uses: Sequence[LoraUse]) -> Velocity:
        """`velocity` with these LoRAs on during each call and at no other time: other work may come in between."""
        if not uses:
            return velocity
        strengths = self.beside(transformer, [uses])

        def with_loras(latents_BLC: Tensor, t: float) -> Tensor:
            with self.adapters.using(strengths):
                return velocity(latents_BLC, t)

        return with_loras

    @property
    def adapters(self) -> Adapters:
        """What stands beside the transformer. Raises `RuntimeError` before `beside` was called."""
        if self._adapters is None:
            raise RuntimeError("no adapters stand beside a transformer yet")
        return self._adapters

    def detach(self) -> None:
        """Let go of the transformer; the files stay read."""
        self._adapters = None

    def _forget(self, key: str) -> None:
        del self._files[key]
        if self._adapters is not None and key in self._adapters.names:
            self._adapters.remove(key)


def _key(use: LoraUse) -> str:
    """What tells one state of one file from another: a file that was written anew is read anew."""
    try:
        path = use.path.expanduser().resolve(strict=True)
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidCheckpoint(f"there is no LoRA {use.path}; check the path", field="loras") from error
    partial = "partial" if use.allow_partial else "whole"
    return f"{path}:{status.st_mtime_ns}:{status.st_size}:{partial}"
