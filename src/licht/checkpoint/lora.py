"""LoRA files of every dialect to adapters, and back. Reading is tolerant, its outcome is strict.

Shapes: I inputs, O outputs of a layer, R rank.
"""

import json
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from licht.checkpoint.lora_names import Place, is_adapter_key, places, split_key, unwrapped
from licht.checkpoint.names import swap_halves
from licht.checkpoint.reader import TensorSource, first_line, read_json
from licht.checkpoint.save import save_tensors
from licht.core.errors import InvalidCheckpoint
from licht.model.lora import Adapter, Branch, Delta, Dense, Kronecker, LowRank
from licht.model.transformer import Flux2Transformer
from licht.model.variants import TransformerConfig

PREFIX: Final = "diffusion_model."
_METADATA: Final = "lora_adapter_metadata"
_PATTERN: Final = re.compile(r"\^?[A-Za-z0-9._-]+")
_FLOATS: Final = {torch.float32, torch.float16, torch.bfloat16}
MAX_FILE_BYTES: Final = 16 * 1000**3
"""Larger than any adapter of rank 512 for the largest network."""

Group = Mapping[str, Tensor]
"""The tensors of one layer in a file, by their part: down, up, alpha, w1, ..."""


@dataclass(frozen=True, slots=True)
class LoraFile:
    """An adapter and what became of the file's keys."""

    name: str
    adapter: Adapter
    applied: int
    total: int
    unknown: tuple[str, ...]
    changes_nothing: bool

    @property
    def report(self) -> str:
        """One line for people."""
        line = f"LoRA {self.name}: {self.applied} of {self.total} keys applied"
        if self.unknown:
            line += f"; unknown: {_some(self.unknown)}"
        return line + ("; it changes nothing, all its products are zero" if self.changes_nothing else "")


@dataclass(frozen=True, slots=True)
class _Scales:
    """How an adapter's configuration scales its layers, for files that have no alpha beside each layer."""

    alpha: float | None = None
    alphas: Mapping[str, float] | None = None
    by_root: bool = False

    def scale(self, layer: str, rank: int) -> float:
        """The factor of a layer's product."""
        alpha = _matching(self.alphas or {}, layer)
        value = alpha if alpha is not None else self.alpha
        if value is None:
            return 1.0
        return value / rank**0.5 if self.by_root else value / rank


def read_lora(path: Path, config: TransformerConfig, allow_partial: bool = False) -> LoraFile:
    """Read an adapter for a network of this size. `path` is a file, or a folder written by peft.

    Raises `InvalidCheckpoint` if no key fits, if some do not and `allow_partial` is not set, and for tensors that are
    broken, incomplete or of the wrong shape.
    """
    file = _find(path)
    source = TensorSource((file,))
    known, sizes = places(config), _sizes(config)
    groups: dict[str, dict[str, str]] = defaultdict(dict)
    unknown = []
    for key in source:
        split = split_key(key)
        if split is None or split[0] not in known:
            unknown.append(key)
            continue
        layer, part = split
        if part in groups[layer]:
            raise InvalidCheckpoint(
                f"{file} holds the {part} part of {layer} twice, as {groups[layer][part]} and as {key}; keep one of them"
            )
        groups[layer][part] = key
    total = len(list(source))
    _check_coverage(file, total, unknown, allow_partial)
    scales = _scales(file, source)
    branches: dict[str, list[Branch]] = defaultdict(list)
    for layer, keys in groups.items():
        place = known[layer]
        tensors = {part: _read(source, key) for part, key in keys.items()}
        branch = _Layer(file, layer, place, sizes[place.official], tensors).branch(scales)
        _refuse_overlap(file, layer, branches[place.official], branch)
        branches[place.official].append(branch)
    adapter = Adapter({place: tuple(found) for place, found in sorted(branches.items())})
    idle = not any(_changes(branch) for found in branches.values() for branch in found)
    return LoraFile(path.name, adapter, total - len(unknown), total, tuple(unknown), idle)


def save_lora(path: Path, adapter: Adapter, metadata: Mapping[str, str] | None = None) -> None:
    """Write low-rank branches under official names with the prefix that most programs read; alpha equals rank.

    The branches of one layer (such as those of q, k and v) become one product. `metadata` (base model, trigger,
    licence) is stored as it is. Raises `ValueError` for branches that are not low-rank or are DoRA.
    """
    tensors: dict[str, Tensor] = {}
    sizes = {}
    for place, branches in adapter.branches.items():
        down, up = _joined(place, branches)
        tensors[f"{PREFIX}{place}.lora_A.weight"] = down.contiguous()
        tensors[f"{PREFIX}{place}.lora_B.weight"] = up.contiguous()
        sizes[place] = down.shape[0]
    said = {"r": max(sizes.values()), "lora_alpha": max(sizes.values()), "rank_pattern": sizes, "alpha_pattern": sizes}
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        save_tensors(temporary, tensors, {"format": "pt", _METADATA: json.dumps(said), **(metadata or {})})
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _joined(place: str, branches: tuple[Branch, ...]) -> tuple[Tensor, Tensor]:
    """One pair of factors for several row blocks: downs stacked, ups on the diagonal."""
    low_rank = [branch.delta for branch in branches if isinstance(branch.delta, LowRank) and branch.magnitude is None]
    if len(low_rank) != len(branches):
        raise ValueError(f"{place} has a branch that is no plain LoRA and cannot be written as one")
    rows = max(branch.start + branch.rows for branch in branches)
    down = torch.cat([delta.down_RI for delta in low_rank])
    up = down.new_zeros(rows, down.shape[0])
    column = 0
    for branch, delta in zip(branches, low_rank, strict=True):
        rank = delta.down_RI.shape[0]
        up[branch.start : branch.start + branch.rows, column : column + rank] = delta.up_OR
        column += rank
    return down, up


@dataclass(frozen=True, slots=True)
class _Layer:
    """The tensors of one layer of a file, and where they belong."""

    file: Path
    name: str
    place: Place
    size: tuple[int, int]
    tensors: Group

    def branch(self, scales: _Scales) -> Branch:
        """The branch that these tensors make, with every factor folded in."""
        parts = self.tensors.keys() - {"alpha", "magnitude"}
        if parts == {"down", "up"}:
            delta: Delta = self._low_rank(scales)
        elif self._is_kronecker(parts):
            delta = self._kronecker(scales)
        else:
            raise InvalidCheckpoint(
                f"{self.file} holds only {', '.join(sorted(self.tensors))} of {self.name}; expected a down and an up "
                "matrix, or two LoKr factors; the file is incomplete"
            )
        rows = self.size[0] // self.place.parts
        return Branch(delta, self.place.part * rows, rows, self._magnitude(rows))

    @staticmethod
    def _is_kronecker(parts: set[str]) -> bool:
        left, right = parts & {"w1", "w1_a", "w1_b"}, parts & {"w2", "w2_a", "w2_b"}
        whole = left in ({"w1"}, {"w1_a", "w1_b"}) and right in ({"w2"}, {"w2_a", "w2_b"})
        return whole and parts == left | right

    def _low_rank(self, scales: _Scales) -> LowRank:
        down, up = self._matrix("down"), self._matrix("up")
        if down.shape[0] != up.shape[1] or not down.shape[0]:
            raise InvalidCheckpoint(
                f"{self.file}: the factors of {self.name} have the ranks {down.shape[0]} and {up.shape[1]}; "
                "expected the same; the file is damaged"
            )
        self._check_shape((up.shape[0], down.shape[1]))
        up = up * self._scale(scales, down.shape[0])
        return LowRank(down, swap_halves(up) if self.place.swap else up)

    def _kronecker(self, scales: _Scales) -> Delta:
        factors, rank = {}, None
        for name in ("w1", "w2"):
            if name in self.tensors:
                factors[name] = self._matrix(name)
                continue
            a, b = self._matrix(f"{name}_a"), self._matrix(f"{name}_b")
            if a.shape[1] != b.shape[0]:
                raise InvalidCheckpoint(
                    f"{self.file}: the factors of {self.name} do not fit together: {name}_a is {tuple(a.shape)}, "
                    f"{name}_b is {tuple(b.shape)}; the file is damaged"
                )
            factors[name], rank = a @ b, b.shape[0]
        left, right = factors["w1"], factors["w2"]
        self._check_shape((left.shape[0] * right.shape[0], left.shape[1] * right.shape[1]))
        # alpha counts only where a factor is a product; trainers store a meaningless one beside full factors
        left = left if rank is None else left * self._scale(scales, rank)
        if not self.place.swap:
            return Kronecker(left, right)
        if left.shape[0] % 2 == 0:
            return Kronecker(swap_halves(left), right)
        return Dense(swap_halves(torch.kron(left, right)))

    def _magnitude(self, rows: int) -> Tensor | None:
        if "magnitude" not in self.tensors:
            return None
        magnitude = self.tensors["magnitude"].float()
        if rows > 1 and tuple(magnitude.shape) == (1, self.size[1]):
            return magnitude
        if magnitude.numel() != rows:
            raise InvalidCheckpoint(
                f"{self.file}: the DoRA magnitude of {self.name} has shape {tuple(magnitude.shape)}; expected {rows} "
                "values; the file is damaged or of another model"
            )
        magnitude = magnitude.flatten()
        return swap_halves(magnitude) if self.place.swap else magnitude

    def _scale(self, scales: _Scales, rank: int) -> float:
        if "alpha" not in self.tensors:
            return scales.scale(self.name, rank)
        if self.tensors["alpha"].numel() != 1:
            raise InvalidCheckpoint(
                f"{self.file}: the alpha of {self.name} has shape {tuple(self.tensors['alpha'].shape)}; expected one number"
            )
        return float(self.tensors["alpha"]) / rank

    def _matrix(self, part: str) -> Tensor:
        """A factor in float32; 1 x 1 convolutions are matrices."""
        tensor = self.tensors[part]
        if tensor.ndim > 2 and tensor[0, 0].numel() == 1:
            tensor = tensor.flatten(1)
        if tensor.ndim != 2:
            raise InvalidCheckpoint(
                f"{self.file}: the {part} part of {self.name} has shape {tuple(tensor.shape)}; expected a matrix"
            )
        return tensor.float()

    def _check_shape(self, shape: tuple[int, int]) -> None:
        expected = (self.size[0] // self.place.parts, self.size[1])
        if shape != expected:
            raise InvalidCheckpoint(
                f"{self.file} changes {self.name} as a {shape[0]} x {shape[1]} matrix; this model has "
                f"{expected[0]} x {expected[1]} there; the LoRA was made for another variant"
            )


def _find(path: Path) -> Path:
    file = path / "adapter_model.safetensors" if path.is_dir() else path
    try:
        size = file.stat().st_size
    except OSError as error:
        raise InvalidCheckpoint(f"there is no LoRA file {file} ({error.strerror}); check the path") from error
    if size > MAX_FILE_BYTES:
        raise InvalidCheckpoint(
            f"{file} has {size:,} bytes; at most {MAX_FILE_BYTES:,} make a LoRA; is it a whole model?"
        )
    return file


def _sizes(config: TransformerConfig) -> dict[str, tuple[int, int]]:
    """(outputs, inputs) of every linear layer."""
    with torch.device("meta"):
        network = Flux2Transformer(config)
    return {
        name: (layer.out_features, layer.in_features)
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
    }


def _check_coverage(file: Path, total: int, unknown: list[str], allow_partial: bool) -> None:
    applied = total - len(unknown)
    if not applied:
        adapters = sum(is_adapter_key(key) for key in unknown)
        what = "fits no layer of this model" if adapters else "is no LoRA"
        why = "it was made for another kind of model" if adapters else "none of its tensors is a part of one"
        raise InvalidCheckpoint(
            f"{file} {what}: 0 of {total} keys applied ({why}); unknown: {_some(tuple(unknown)) or 'no keys at all'}"
        )
    if unknown and not allow_partial:
        raise InvalidCheckpoint(
            f"{file}: {applied} of {total} keys applied; unknown: {_some(tuple(unknown))}; the LoRA was made for "
            "another variant or in an unknown dialect; allow a partial LoRA to use the rest"
        )


def _refuse_overlap(file: Path, layer: str, present: list[Branch], new: Branch) -> None:
    for branch in present:
        if branch.start < new.start + new.rows and new.start < branch.start + branch.rows:
            raise InvalidCheckpoint(
                f"{file} changes the rows of {layer} twice, under two names of the same layer; keep one of them"
            )


def _read(source: TensorSource, key: str) -> Tensor:
    tensor = source.tensor(key)
    if tensor.dtype not in _FLOATS:
        whole = key.endswith(".alpha") and tensor.numel() == 1  # some trainers store alpha as an integer
        if not whole:
            raise InvalidCheckpoint(
                f"tensor {key} in {source.place} is stored as {tensor.dtype}; a LoRA is float32, float16 or bfloat16"
            )
        tensor = tensor.float()
    if tensor.numel() and not torch.isfinite(tensor).all():
        raise InvalidCheckpoint(f"tensor {key} in {source.place} has values that are not finite; the file is damaged")
    return tensor


def _scales(file: Path, source: TensorSource) -> _Scales:
    """The adapter's configuration: in the file's metadata, else beside it as peft writes it."""
    if _METADATA in source.metadata:
        try:
            said = json.loads(source.metadata[_METADATA])
        except (ValueError, RecursionError) as error:
            raise InvalidCheckpoint(
                f"{file} has metadata that is no JSON ({first_line(error)}); write the LoRA again"
            ) from error
        if not isinstance(said, dict):
            raise InvalidCheckpoint(f"{file} has metadata that is no JSON object; write the LoRA again")
        return _scales_from(file, {key.removeprefix("transformer."): value for key, value in said.items()})
    beside = file.with_name("adapter_config.json")
    if file.name == "adapter_model.safetensors" and beside.is_file():
        return _scales_from(beside, read_json(beside))
    return _Scales()


def _scales_from(file: Path, said: Mapping[str, Any]) -> _Scales:
    def number(key: str) -> float | None:
        value = said.get(key)
        if value is None:
            return None
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise InvalidCheckpoint(f"{file} has the {key} {value!r}; expected a number; write the LoRA again")
        return float(value)

    def numbers(key: str) -> dict[str, float]:
        value: object = said.get(key) or {}
        if not isinstance(value, dict) or not all(isinstance(v, int | float) for v in value.values()):
            raise InvalidCheckpoint(f"{file} has a {key} that maps no names to numbers; write the LoRA again")
        if strange := next((name for name in value if not _PATTERN.fullmatch(name)), None):
            raise InvalidCheckpoint(
                f"{file} has a {key} with {strange!r}, which is no name of a layer; write the LoRA again with names"
            )
        return {name: float(v) for name, v in value.items()}

    return _Scales(number("lora_alpha"), numbers("alpha_pattern"), bool(said.get("use_rslora")))


def _matching(patterns: Mapping[str, float], layer: str) -> float | None:
    """The value of the first name in `patterns` that is the layer's, or its end after a dot, as peft matches them.

    A caret before the name asks for the whole name.
    """
    for pattern, value in patterns.items():
        name = unwrapped(pattern.removeprefix("^"))
        if layer == name or (layer.endswith("." + name) and not pattern.startswith("^")):
            return value
    return None


def _changes(branch: Branch) -> bool:
    """Whether a branch can have any effect."""
    delta = branch.delta
    if branch.magnitude is not None:
        return True
    if isinstance(delta, LowRank):
        return bool(delta.down_RI.any()) and bool(delta.up_OR.any())
    if isinstance(delta, Kronecker):
        return bool(delta.left.any()) and bool(delta.right.any())
    return bool(delta.matrix().any())


def _some(names: tuple[str, ...]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
