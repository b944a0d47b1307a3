"""GGUF files: one checkpoint in ggml's block formats, mapped rather than read."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor

from licht.checkpoint.reader import MAX_TENSORS, TensorInfo, TensorSource, check_name, first_line
from licht.core.errors import InvalidCheckpoint, NotAvailable
from licht.quant.gguf_blocks import BLOCK_FORMATS, GgufLinear
from licht.quant.linear import QuantisedLinear

if TYPE_CHECKING:
    from gguf import ReaderTensor

_MAGIC: Final = b"GGUF"
_MAX_KEYS: Final = 10_000
_PLAIN: Final = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def is_gguf(path: Path) -> bool:
    """Whether a file begins as GGUF files do."""
    with path.open("rb") as file:
        return file.read(4) == _MAGIC


class GgufSource(TensorSource):
    """The tensors of one GGUF file. Matrices in block formats come as layers."""

    def __init__(self, path: Path) -> None:
        """Read and check the header. Raises `InvalidCheckpoint`, or `NotAvailable` without the gguf package."""
        try:
            from gguf import GGUFReader
        except ImportError as error:
            raise NotAvailable("GGUF files need the gguf package: install it with pip install gguf") from error
        _check_counts(path)
        try:
            self._reader = GGUFReader(path, "c")  # mapped, and private should anybody write
        except (OSError, ValueError, KeyError, IndexError, OverflowError, TypeError, MemoryError) as error:
            raise InvalidCheckpoint(
                f"{path} is not a complete GGUF file ({first_line(error)}); download or copy it again"
            ) from error
        self.paths = (path,)
        self.metadata: dict[str, str] = {}
        self._infos: dict[str, TensorInfo] = {}
        self._tensors: dict[str, ReaderTensor] = {}
        for tensor in self._reader.tensors:
            self._add_tensor(path, tensor)

    @property
    def memory_bytes(self) -> int:
        """Bytes as stored."""
        return sum(int(tensor.n_bytes) for tensor in self._tensors.values())

    def said(self, key: str) -> str | int | float | bool | None:
        """A scalar of the file's metadata; None if it is not there."""
        field = self._reader.get_field(key)
        value = None if field is None else field.contents()
        return value if isinstance(value, str | int | float | bool) else None

    @property
    def kinds(self) -> list[str]:
        """The format of every tensor, as ggml calls it."""
        return [tensor.tensor_type.name for tensor in self._tensors.values()]

    def tensor(self, name: str) -> Tensor:
        """A tensor; one in a block format is dequantised to bfloat16."""
        layer = self.layer(name, torch.bfloat16)
        return self._plain(name) if layer is None else layer.weight

    def stored(self, name: str) -> Tensor:
        """The blocks, or a plain tensor."""
        return torch.from_numpy(self._tensors[name].data)

    def layer(self, name: str, dtype: torch.dtype) -> QuantisedLinear | None:
        """A matrix in a block format as a layer, None for a plain tensor."""
        stored = self._tensors[name]
        kind = stored.tensor_type.name
        if kind not in BLOCK_FORMATS:
            return None
        raw = torch.from_numpy(stored.data).reshape(self._infos[name].shape[0], -1)
        return GgufLinear(raw, kind, dtype)

    def _plain(self, name: str) -> Tensor:
        stored = self._tensors[name]
        tensor = torch.from_numpy(stored.data)
        return tensor.view(_PLAIN[stored.tensor_type.name]).reshape(self._infos[name].shape)

    def _add_tensor(self, path: Path, tensor: "ReaderTensor") -> None:
        name, kind = str(tensor.name), tensor.tensor_type.name
        check_name(path, name)
        if name in self._infos:
            raise InvalidCheckpoint(f"tensor {name} is twice in {path}; every tensor belongs in a file once")
        if kind not in BLOCK_FORMATS and kind not in _PLAIN:
            known = ", ".join([*_PLAIN, *BLOCK_FORMATS])
            raise InvalidCheckpoint(f"tensor {name} in {path} has the format {kind}; known are {known}")
        shape = tuple(int(side) for side in reversed(tensor.shape))
        if kind in BLOCK_FORMATS and (len(shape) != 2 or shape[1] % BLOCK_FORMATS[kind].values):
            raise InvalidCheckpoint(
                f"tensor {name} in {path} has shape {shape}, which {kind} cannot store; it is damaged"
            )
        self._infos[name] = TensorInfo(shape, _PLAIN.get(kind, torch.bfloat16))
        self._tensors[name] = tensor


def _check_counts(path: Path) -> None:
    """Refuse a header that would take long to read, before it is read."""
    with path.open("rb") as file:
        start = file.read(24)
    tensors, keys = (int.from_bytes(start[i : i + 8], "little") for i in (8, 16))
    if len(start) < 24 or tensors > MAX_TENSORS or keys > _MAX_KEYS:
        raise InvalidCheckpoint(
            f"{path} has {tensors:,} tensors and {keys:,} entries; at most {MAX_TENSORS:,} and {_MAX_KEYS:,} are read"
        )
