"""Safetensors files byte by byte, so that they can be wrong on purpose."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with this header (an object, or its raw text) and this data; `length` may lie about the header."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(shape: list[int], start: int = 0, dtype: str = "F32", end: int | None = None) -> dict[str, Any]:
    """One tensor in a header."""
    size = torch.Size(shape).numel() * 4
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, start + size if end is None else end]}


def tensors(path: Path) -> dict[str, Tensor]:
    """All tensors of the one safetensors file in a folder, or of a file."""
    return load_file(only_file(path))


def only_file(path: Path) -> Path:
    """The one safetensors file in a folder; a file is itself."""
    if path.is_file():
        return path
    (found,) = path.glob("*.safetensors")
    return found


def rewrite(path: Path, changes: Mapping[str, Tensor | None], metadata: Mapping[str, str] | None = None) -> Path:
    """Replace, add or (None) remove tensors of a file, or of the one file in a folder."""
    file = only_file(path)
    kept = {name: tensor for name, tensor in {**tensors(file), **changes}.items() if tensor is not None}
    save_file(kept, file, dict(metadata or {}))
    return file
