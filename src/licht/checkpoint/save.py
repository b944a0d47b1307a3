"""Writing checkpoints in either layout, in shards, so that a file is complete or absent."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from licht.checkpoint.detect import Layout
from licht.checkpoint.names import Piece, autoencoder_layout, official_layout, transformer_layout
from licht.core.errors import OutputFailed
from licht.model.autoencoder import Autoencoder
from licht.model.linear import StackedLinear
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer

DEFAULT_SHARD_BYTES = 10 * 1000**3
TOWER_PREFIX = "model."


@dataclass(frozen=True, slots=True)
class Target:
    """Where a checkpoint goes: `folder`/`stem`.safetensors, or numbered shards and an index beyond `shard_bytes`."""

    folder: Path
    stem: str
    shard_bytes: int = DEFAULT_SHARD_BYTES


def official_tensors(module: nn.Module) -> dict[str, Tensor]:
    """The weights of a network by official name; rows that lie in several matrices are fused."""
    stacked = {name: layer for name, layer in module.named_modules() if isinstance(layer, StackedLinear)}
    tensors = {
        name: tensor
        for name, tensor in module.state_dict().items()
        if not any(name.startswith(f"{prefix}.blocks.") for prefix in stacked)
    }
    tensors.update({f"{name}.weight": layer.weight for name, layer in stacked.items()})
    tensors.pop("bn.num_batches_tracked", None)
    return tensors


def named_tensors(module: Flux2Transformer | Autoencoder | TextTower, layout: Layout) -> Iterator[tuple[str, Tensor]]:
    """(name, tensor) of every weight under the names of `layout`, one at a time."""
    tensors = official_tensors(module)
    for piece in _pieces(module, layout, tensors):
        yield piece.foreign, piece.to_foreign(tensors[piece.official])


def save_network(
    module: Flux2Transformer | Autoencoder | TextTower,
    target: Target,
    layout: Layout,
    metadata: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write a network. Returns the files written.

    Each file appears under its name only when it is complete. Raises `OutputFailed` if the disk refuses.
    """
    shards = _shards(named_tensors(module, layout), target.shard_bytes)
    names = [_shard_name(target.stem, number, len(shards)) for number in range(1, len(shards) + 1)]
    try:
        target.folder.mkdir(parents=True, exist_ok=True)
        for name, shard in zip(names, shards, strict=True):
            _write_tensors(target.folder / name, shard, metadata)
        if len(shards) > 1:
            _write_index(target, names, shards)
    except (OSError, SafetensorError) as error:  # the library reports a full disk as an error of its own
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise OutputFailed(
            f"{target.folder} cannot be written ({reason}); make room or choose another place", field="output"
        ) from error
    return [target.folder / name for name in names]


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object atomically. Raises `OSError`."""
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        temporary.write_text(json.dumps(value, indent=2) + "\n", "utf-8")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _pieces(
    module: Flux2Transformer | Autoencoder | TextTower, layout: Layout, tensors: Mapping[str, Tensor]
) -> Sequence[Piece]:
    if isinstance(module, TextTower):
        # both layouts keep the language model's published names
        return [Piece(name, TOWER_PREFIX + name) for name in tensors]
    if layout is Layout.OFFICIAL:
        return official_layout(tensors)
    if isinstance(module, Autoencoder):
        return autoencoder_layout(module.config)
    return transformer_layout(module.config)


def _shards(tensors: Iterator[tuple[str, Tensor]], shard_bytes: int) -> list[dict[str, Tensor]]:
    """Fill shards in order; a tensor larger than a shard gets one of its own."""
    shards: list[dict[str, Tensor]] = [{}]
    used = 0
    for name, tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if shards[-1] and used + size > shard_bytes:
            shards.append({})
            used = 0
        shards[-1][name] = tensor
        used += size
    return shards


def _shard_name(stem: str, number: int, total: int) -> str:
    return f"{stem}.safetensors" if total == 1 else f"{stem}-{number:05d}-of-{total:05d}.safetensors"


def save_tensors(path: Path, tensors: dict[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a file that whoever may look into its folder can read: the library's own are for their owner alone."""
    save_file(tensors, path, dict(metadata) if metadata else None)
    path.chmod(path.parent.stat().st_mode & 0o666)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> None:
    # views of one matrix would be refused by the library, which wants every tensor to own its storage
    owned = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_tensors(temporary, owned, {"format": "pt", **(metadata or {})})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _write_index(target: Target, names: Sequence[str], shards: Sequence[Mapping[str, Tensor]]) -> None:
    total = sum(tensor.numel() * tensor.element_size() for shard in shards for tensor in shard.values())
    weight_map = {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard}
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    write_json(target.folder / f"{target.stem}.safetensors.index.json", index)
