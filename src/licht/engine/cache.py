"""What was computed once: tensors by key, the least recently used going first, in memory and if wanted on disk.

A hit equals a miss bit by bit: keys name everything that the tensors depend on, the machine included, and what is read
from disk is checked against its digest.
"""

import hashlib
import os
import secrets
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from licht.checkpoint.load import Placement
from licht.checkpoint.reader import first_line
from licht.core.errors import InvalidSettings

Tensors = Mapping[str, Tensor]

MEMORY_BYTES: Final = 512 * 2**20
FOLDER_BYTES: Final = 8 * 2**30
_SUFFIX: Final = ".safetensors"
_DIGEST: Final = "digest"
_HEAD_BYTES: Final = 1 << 20
_SAMPLES: Final = 64
_SAMPLE_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True)
class CacheChoice:
    """How much is kept in memory, 0 for nothing, and where and how much on disk; no folder, no disk."""

    memory_bytes: int = MEMORY_BYTES
    folder: Path | None = None
    folder_bytes: int = FOLDER_BYTES

    def __post_init__(self) -> None:
        if min(self.memory_bytes, self.folder_bytes) < 0:
            raise InvalidSettings("a cache cannot hold less than 0 bytes; use 0 for none", field="cache_bytes")


class TensorCache:
    """Tensors on the CPU by key. What cannot be read or written is computed anew, with a warning for the result."""

    def __init__(self, choice: CacheChoice) -> None:
        """Start empty; what an earlier process left in the folder is found there."""
        self._choice = choice
        self._kept: OrderedDict[str, dict[str, Tensor]] = OrderedDict()
        self._bytes = 0
        self._warnings: list[str] = []
        self.hits = 0
        self.misses = 0

    @property
    def memory_bytes(self) -> int:
        """What the kept tensors take."""
        return self._bytes

    def get(self, key: str) -> dict[str, Tensor] | None:
        """The tensors of `key`, on the CPU, or None."""
        if key in self._kept:
            self._kept.move_to_end(key)
            self.hits += 1
            return self._kept[key]
        found = self._read(key)
        if found is not None:
            self._keep(key, found)
            self.hits += 1
        else:
            self.misses += 1
        return found

    def put(self, key: str, tensors: Tensors) -> None:
        """Keep `tensors`, letting go of what was not used for the longest time. What is too large alone is not kept."""
        on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
        self._keep(key, on_cpu)
        self._write(key, on_cpu)

    def clear(self) -> None:
        """Empty the memory; the folder stays."""
        self._kept.clear()
        self._bytes = 0

    def take_warnings(self) -> tuple[str, ...]:
        """What went wrong since this was last asked."""
        taken, self._warnings = tuple(dict.fromkeys(self._warnings)), []
        return taken

    def _keep(self, key: str, tensors: dict[str, Tensor]) -> None:
        size_bytes = _size_bytes(tensors)
        if size_bytes > self._choice.memory_bytes:
            return
        self._bytes += size_bytes - _size_bytes(self._kept.pop(key, {}))
        self._kept[key] = tensors
        while self._bytes > self._choice.memory_bytes:
            _, gone = self._kept.popitem(last=False)
            self._bytes -= _size_bytes(gone)

    def _read(self, key: str) -> dict[str, Tensor] | None:
        if self._choice.folder is None:
            return None
        path = self._choice.folder / f"{key}{_SUFFIX}"
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                # copied: the file may be deleted or replaced while the tensors are in use
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 - no mapping
                digest = (file.metadata() or {}).get(_DIGEST, "")
            if digest != _digest(tensors):
                raise ValueError("its digest is another")
            os.utime(path)  # the time of the last use, by which files are let go of
        except (SafetensorError, OSError, ValueError, RuntimeError) as error:
            self._warnings.append(f"{path} in the cache is damaged ({first_line(error)}): deleted and computed anew")
            with suppress(OSError):
                path.unlink()
            return None
        return tensors

    def _write(self, key: str, tensors: dict[str, Tensor]) -> None:
        folder = self._choice.folder
        if folder is None or _size_bytes(tensors) > self._choice.folder_bytes:
            return
        temporary = folder / f".{secrets.token_hex(8)}.part"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            save_file(tensors, temporary, {_DIGEST: _digest(tensors)})
            temporary.replace(folder / f"{key}{_SUFFIX}")
            self._trim(folder)
        except (OSError, SafetensorError) as error:
            self._warnings.append(f"the cache {folder} cannot be written ({first_line(error)}): nothing was kept there")
        finally:
            with suppress(OSError):
                temporary.unlink()

    def _trim(self, folder: Path) -> None:
        """Delete the files that were not used for the longest time until the rest is small enough."""
        files = []
        for path in folder.glob(f"*{_SUFFIX}"):
            with suppress(FileNotFoundError):  # another process trims too
                status = path.stat()
                files.append((status.st_mtime_ns, status.st_size, path))
        total = sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._choice.folder_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size


def key_of(kind: str, *parts: object) -> str:
    """A key for tensors of one kind that depend on `parts`, told apart by their `repr`."""
    return hashlib.sha256(repr((kind, *parts)).encode()).hexdigest()


def digest_of(*tensors: Tensor) -> str:
    """SHA-256 over shapes, dtypes and bytes of tensors."""
    return _digest({str(number): tensor.detach().cpu() for number, tensor in enumerate(tensors)})


def weights_identity(paths: Sequence[Path]) -> str:
    """Which weights these files hold: SHA-256 over sizes, times, headers and samples from all over them.

    A file that is written anew has another time, one that is exchanged other samples; neither reads all of it.
    """
    digest = hashlib.sha256()
    for path in sorted(paths):
        status = path.stat()
        digest.update(f"{status.st_size}:{status.st_mtime_ns}:".encode())
        with path.open("rb") as file:
            digest.update(file.read(_HEAD_BYTES))
            for number in range(_SAMPLES):
                file.seek(status.st_size * number // _SAMPLES)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def arithmetic(placement: Placement) -> str:
    """Everything about this machine and this build that may change the last bit of a result."""
    device = placement.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{torch.get_num_threads()} threads"
    return f"{torch.__version__} {device.type} {name} {placement.dtype} {placement.quant}"


def _size_bytes(tensors: Tensors) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def _digest(tensors: Tensors) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
