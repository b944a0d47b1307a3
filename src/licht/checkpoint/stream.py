"""Writing a safetensors file one tensor at a time: nothing but the tensor at hand is in memory."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from licht.core.errors import OutputFailed

_NAMES: Final = {
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
    torch.int8: "I8",
    torch.uint8: "U8",
}


@dataclass(frozen=True, slots=True)
class Planned:
    """What will be written: the entries of a header, and who makes their tensors when it is their turn."""

    entries: Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
    make: Callable[[], Mapping[str, Tensor]]


def write_stream(path: Path, planned: Sequence[Planned], metadata: Mapping[str, str]) -> int:
    """Write `planned` in order and return the number of bytes. The file appears under its name when it is complete.

    Raises `OutputFailed` if the disk refuses.
    """
    header, position = _header(planned, metadata)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(len(header).to_bytes(8, "little") + header)
            for one in planned:
                tensors = one.make()
                for name, (dtype, shape) in one.entries.items():
                    _write(file.write, name, tensors[name], dtype, shape)
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or error
        raise OutputFailed(f"{path} cannot be written ({reason}); make room or choose another place") from error
    finally:
        temporary.unlink(missing_ok=True)
    return 8 + len(header) + position


def _header(planned: Sequence[Planned], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    """The header, padded to 8 bytes, and the number of bytes of data."""
    header: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    position = 0
    for one in planned:
        for name, (dtype, shape) in one.entries.items():
            end = position + torch.Size(shape).numel() * dtype.itemsize
            header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [position, end]}
            position = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8), position


def _write(
    write: Callable[[memoryview], int], name: str, tensor: Tensor, dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise ValueError(f"{name} was planned as {dtype} {shape} and became {tensor.dtype} {tuple(tensor.shape)}")
    flat = tensor.detach().cpu().contiguous().view(-1)
    write(flat.view(torch.uint8).numpy().data)
