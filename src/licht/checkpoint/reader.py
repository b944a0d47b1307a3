"""Safetensors files, mapped rather than read: opening one costs its header, a tensor costs memory when it is touched."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from licht.core.errors import InvalidCheckpoint
from licht.quant.linear import QuantisedLinear

MAX_TENSORS: Final = 20_000
MAX_NAME_LENGTH: Final = 256
MAX_HEADER_BYTES: Final = 8 * 1024 * 1024
"""Enough for `MAX_TENSORS` with names of that length; a larger header only costs time."""
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*")
_DTYPES: Final[Mapping[str, torch.dtype]] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """What a header says of one tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype

    @property
    def memory_bytes(self) -> int:
        """Bytes of the tensor's data."""
        return torch.Size(self.shape).numel() * self.dtype.itemsize


class TensorSource:
    """The tensors of one checkpoint, in one file or several shards. Names are unique over all of them."""

    def __init__(self, paths: tuple[Path, ...]) -> None:
        """Read and check every header. Raises `InvalidCheckpoint` for a broken or suspicious file."""
        self.paths = paths
        self.metadata: dict[str, str] = {}
        self._infos: dict[str, TensorInfo] = {}
        self._files: dict[str, safe_open] = {}
        self._shards: dict[str, str] = {}
        for path in paths:
            self._open(path)

    @property
    def infos(self) -> Mapping[str, TensorInfo]:
        """Shape and dtype of every tensor by name."""
        return self._infos

    @property
    def memory_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(info.memory_bytes for info in self._infos.values())

    @property
    def place(self) -> str:
        """Where the checkpoint is, for messages: its file, or the folder of its shards."""
        return str(self.paths[0] if len(self.paths) == 1 else self.paths[0].parent)

    def shard(self, name: str) -> str:
        """The name of the file that holds the tensor `name`."""
        return self._shards[name]

    def tensor(self, name: str) -> Tensor:
        """The tensor `name`, backed by the mapped file: no memory is spent until it is touched."""
        tensor: Tensor = self._files[name].get_tensor(name)
        return tensor

    def stored(self, name: str) -> Tensor:
        """What lies in the file under this name, codes of a quantised matrix included."""
        return self.tensor(name)

    def layer(self, name: str, dtype: torch.dtype) -> QuantisedLinear | None:
        """A quantised matrix as a layer that computes in `dtype`; None for a tensor that is stored plainly."""
        del name, dtype
        return None

    def __contains__(self, name: str) -> bool:
        return name in self._infos

    def __iter__(self) -> Iterator[str]:
        return iter(self._infos)

    def _open(self, path: Path) -> None:
        _check_header_size(path)
        try:
            # safetensors maps the file; the handle stays open as long as this source lives
            file = safe_open(path, framework="pt")
        except (SafetensorError, OSError) as error:
            if _is_pickle(path):
                raise InvalidCheckpoint(
                    f"{path} is a pickle, which can run code when it is read; use the same weights as safetensors"
                ) from error
            raise InvalidCheckpoint(
                f"{path} is not a complete safetensors file ({first_line(error)}); download or copy it again"
            ) from error
        self.metadata.update(file.metadata() or {})
        names = list(file.keys())
        if len(self._infos) + len(names) > MAX_TENSORS:
            raise InvalidCheckpoint(
                f"{path} has {len(names):,} tensors; at most {MAX_TENSORS:,} make a checkpoint; such a file is not loaded"
            )
        for name in names:
            self._add(path, name, file)

    def _add(self, path: Path, name: str, file: safe_open) -> None:
        check_name(path, name)
        if name in self._infos:
            raise InvalidCheckpoint(f"tensor {name} is in {path} and in another shard; every tensor belongs in one")
        view = file.get_slice(name)
        dtype = _DTYPES.get(view.get_dtype())
        if dtype is None:
            raise InvalidCheckpoint(
                f"tensor {name} in {path} has the type {view.get_dtype()}; use one of {', '.join(_DTYPES)}"
            )
        self._infos[name] = TensorInfo(tuple(view.get_shape()), dtype)
        self._files[name] = file
        self._shards[name] = path.name


def check_name(path: Path, name: str) -> None:
    """Raise `InvalidCheckpoint` for a name that no tensor of a network has, such as one with path parts."""
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH or ".." in name:
        raise InvalidCheckpoint(f"{path} has a tensor with the name {name[:80]!r}; such a file is not loaded")


def _check_header_size(path: Path) -> None:
    """Raise `InvalidCheckpoint` for a header that would take long to parse, before it is parsed."""
    try:
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            file_bytes = file.seek(0, 2)
    except OSError as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({first_line(error)}); check its permissions") from error
    if MAX_HEADER_BYTES < header_bytes <= file_bytes - 8:
        raise InvalidCheckpoint(
            f"{path} has a header of {header_bytes:,} bytes; at most {MAX_HEADER_BYTES:,} are read; "
            "such a file is not loaded"
        )


def _is_pickle(path: Path) -> bool:
    """Whether a file that is no safetensors file begins like a pickle, or like the archive that torch puts one in."""
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or (start[:1] == b"\x80" and start[1:2] in b"\x02\x03\x04\x05")


def open_source(path: Path) -> TensorSource:
    """Open a safetensors file, or a folder with one file or with shards and their index.

    Raises `InvalidCheckpoint` if there is none, if shards are missing, or if the index and the shards disagree.
    """
    if path.is_file():
        return TensorSource((path,))
    indices = sorted(path.glob("*.safetensors.index.json"))
    if len(indices) == 1:
        return _open_shards(indices[0])
    files = sorted(path.glob("*.safetensors"))
    if len(files) == 1 and not indices:
        return TensorSource((files[0],))
    pickles = sorted(p.name for p in path.glob("*") if p.suffix in {".bin", ".pt", ".pth", ".ckpt"})
    if not files and pickles:
        raise InvalidCheckpoint(
            f"{path} holds only {pickles[0]}, a pickle, which can run code when it is read; "
            "use the same weights as safetensors"
        )
    found = f"{len(files)} safetensors files and {len(indices)} indices" if files or indices else "no safetensors file"
    raise InvalidCheckpoint(f"{path} holds {found}; expected one file, or shards with one index; copy it again")


def _open_shards(index_path: Path) -> TensorSource:
    weight_map = read_json(index_path).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(v, str) for v in weight_map.values()):
        raise InvalidCheckpoint(f"{index_path} has no weight_map from tensor to shard; copy the index again")
    shards = sorted(set(weight_map.values()))
    for shard in shards:
        if Path(shard).name != shard or not (index_path.parent / shard).is_file():
            raise InvalidCheckpoint(f"{index_path} names the shard {shard!r}, which is not beside it; copy all shards")
    source = TensorSource(tuple(index_path.parent / shard for shard in shards))
    differing = sorted(set(source) ^ set(weight_map))
    if differing:
        raise InvalidCheckpoint(f"{index_path} and its shards disagree on {_some(differing)}; copy all of them again")
    misplaced = sorted(name for name, shard in weight_map.items() if source.shard(name) != shard)
    if misplaced:
        raise InvalidCheckpoint(
            f"{index_path} has {_some(misplaced)} in another shard than the one that holds it; the shards are mixed up "
            "or the index is another's; copy all of them again"
        )
    return source


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. Raises `InvalidCheckpoint` if the file is missing or is anything else."""
    try:
        value = json.loads(path.read_text("utf-8"))
        # half a character can be escaped in JSON, but is no text and breaks whatever writes or tokenises it
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except (OSError, ValueError, RecursionError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read as JSON ({first_line(error)}); copy it again") from error
    if not isinstance(value, dict):
        raise InvalidCheckpoint(f"{path} holds a JSON {type(value).__name__}; expected an object; copy it again")
    return value


def first_line(error: BaseException) -> str:
    """The first line of a library's message, for a message of ours."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]


def _some(names: list[str], limit: int = 3) -> str:
    """The first few names and how many more there are."""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
