"""Quantised checkpoints: which tensors make up one matrix, in which format, and that matrix as a layer.

A matrix counts as one tensor of its real shape; scales and other helpers disappear from the list of names. Nothing is
guessed in silence: a matrix whose helpers are unknown, missing or contradictory is an error that names it.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from licht.checkpoint.gguf_file import GgufSource, is_gguf
from licht.checkpoint.gguf_tower import GgufTower, is_tower
from licht.checkpoint.names import normalise_official
from licht.checkpoint.reader import TensorInfo, TensorSource, first_line, open_source
from licht.core.errors import InvalidCheckpoint
from licht.quant.fp8 import DTYPES as FP8
from licht.quant.fp8 import Fp8Linear
from licht.quant.gguf_blocks import BLOCK_FORMATS
from licht.quant.int8 import Int8Linear
from licht.quant.linear import QuantisedLinear
from licht.quant.nf4 import Nested, Nf4Linear, block_scales
from licht.quant.nvfp4 import GROUP as NVFP4_GROUP
from licht.quant.nvfp4 import Nvfp4Linear, swap_nibbles, tiled_shape, untile_scales
from licht.quant.q4 import GROUP as Q4_GROUP
from licht.quant.q4 import Q4Linear

_SIDES: Final = (
    *("weight_scale", "weight_scale_2", "scale_weight", "input_scale", "scale_input", "pre_quant_scale", "comfy_quant"),
    *("weight.absmax", "weight.quant_map", "weight.nested_absmax", "weight.nested_quant_map"),
    *("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4"),
)
_STATES: Final = ("weight.quant_state.bitsandbytes__nf4", "weight.quant_state.bitsandbytes__fp4")
_OLD_MARK: Final = "scaled_fp8"
_METADATA: Final = "_quantization_metadata"
_FORMATS: Final = {
    "float8_e4m3fn": torch.float8_e4m3fn,
    "float8_e5m2": torch.float8_e5m2,
    "int8_tensorwise": torch.int8,
    "int8_rowwise": torch.int8,
    "nvfp4": torch.uint8,
    "q4": torch.uint8,
}
"""Declared format -> how its codes are stored."""
MAX_JSON_BYTES: Final = 4096


@dataclass(frozen=True, slots=True)
class _Matrix:
    """One quantised matrix: its layer's name in the file, its helpers by what they are, its format and real shape."""

    source: TensorSource
    layer: str
    sides: Mapping[str, str]
    form: str
    shape: tuple[int, int]
    comfy: bool

    def codes(self) -> Tensor:
        """The codes as stored. Raises `InvalidCheckpoint` for fp8 codes that are not finite."""
        codes = self.source.tensor(f"{self.layer}.weight")
        if codes.dtype in FP8:
            size = codes.view(torch.uint8) & 0x7F
            if bool((size > (0x7E if codes.dtype is torch.float8_e4m3fn else 0x7B)).any()):
                raise self.wrong("has codes that are not finite; the file is damaged, copy it again")
        return codes

    def scale(self, *names: str) -> Tensor:
        """The helper of the first of these names that is there, checked."""
        name = next((name for name in names if name in self.sides), None)
        if name is None:
            raise self.wrong(f"has no {names[0]}; the file is incomplete, download it again")
        scale = self.source.tensor(self.sides[name])
        if not torch.isfinite(scale.float()).all() or bool((scale.float() < 0).any() and self.form != "q4"):
            raise self.wrong(f"has a {name} that is not finite or negative; the file is damaged, copy it again")
        return scale

    def wrong(self, what: str) -> InvalidCheckpoint:
        """An error that names this matrix."""
        return InvalidCheckpoint(f"tensor {self.layer}.weight in {self.source.place} {what}")

    def layer_in(self, dtype: torch.dtype) -> QuantisedLinear:
        """The matrix as a layer that computes in `dtype`."""
        return _READERS[self.form](self, dtype)


class PackedSource(TensorSource):
    """A checkpoint of which some matrices are quantised."""

    def __init__(self, source: TensorSource, matrices: Mapping[str, _Matrix], helpers: set[str]) -> None:
        """`matrices` by the name of their weight; `helpers` are the names that belong to them."""
        self.paths, self.metadata = source.paths, source.metadata
        self._source, self._matrices = source, matrices
        self._stored_bytes = source.memory_bytes
        self._infos = {name: info for name, info in source.infos.items() if name not in helpers}
        self._infos |= {name: TensorInfo(matrix.shape, torch.bfloat16) for name, matrix in matrices.items()}

    @property
    def memory_bytes(self) -> int:
        """Bytes as stored."""
        return self._stored_bytes

    @property
    def formats(self) -> Mapping[str, str]:
        """Name of each quantised weight -> its format."""
        return {name: matrix.form for name, matrix in self._matrices.items()}

    def tensor(self, name: str) -> Tensor:
        """A tensor; a quantised one is dequantised to bfloat16."""
        layer = self.layer(name, torch.bfloat16)
        return self._source.tensor(name) if layer is None else layer.weight

    def stored(self, name: str) -> Tensor:
        """The codes of a quantised matrix, or a plain tensor."""
        return self._source.tensor(name)

    def layer(self, name: str, dtype: torch.dtype) -> QuantisedLinear | None:
        """A quantised matrix as a layer, None for a plain tensor."""
        matrix = self._matrices.get(name)
        return None if matrix is None else matrix.layer_in(dtype)


def open_weights(path: Path) -> TensorSource:
    """Open a checkpoint: safetensors, plain or quantised, or GGUF. Raises `InvalidCheckpoint`."""
    blocks = sorted(path.glob("*.gguf")) if path.is_dir() else [path]
    if len(blocks) == 1 and is_gguf(blocks[0]) and not list(path.glob("*.safetensors")):
        source = GgufSource(blocks[0])
        return GgufTower(source) if is_tower(source) else source
    return recognise(open_source(path))


def recognise(source: TensorSource) -> TensorSource:
    """`source` itself if nothing in it is quantised, else with its quantised matrices put together."""
    sides: dict[str, dict[str, str]] = defaultdict(dict)
    marks = {name for name in source if name == _OLD_MARK or name.endswith("." + _OLD_MARK)}
    for name in source:
        side = next((side for side in _SIDES if name.endswith("." + side)), None)
        if side is not None:
            sides[name.removesuffix("." + side)][side] = name
    declared = _declared(source)
    small = {
        name.removesuffix(".weight")
        for name, info in source.infos.items()
        if info.dtype in FP8 and name.endswith(".weight") and len(info.shape) == 2
    }
    layers = sorted(sides.keys() | small | {name for name in (*declared,) if f"{name}.weight" in source})
    if not layers and not marks:
        return source
    scaled = bool(marks or declared or sides)
    matrices, helpers = {}, set(marks)
    for layer in layers:
        helpers |= set(sides[layer].values())
        matrix = _understood(source, layer, sides[layer], declared, scaled)
        if matrix is not None:
            matrices[f"{layer}.weight"] = matrix
    return PackedSource(source, matrices, helpers)


def _declared(source: TensorSource) -> dict[str, str]:
    """Layer as the file names it -> format, where the file's metadata says so."""
    if _METADATA not in source.metadata:
        return {}
    try:
        said = json.loads(source.metadata[_METADATA])
        layers = {str(name): str(entry["format"]) for name, entry in said["layers"].items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InvalidCheckpoint(
            f"{source.place} has quantisation metadata that cannot be read ({first_line(error)}); download it again"
        ) from error
    wanted = {normalise_official(name): form for name, form in layers.items()}
    found = {}
    for name in source:
        layer = name.removesuffix(".weight")
        if layer != name and normalise_official(layer) in wanted:
            found[layer] = wanted[normalise_official(layer)]
    missing = sorted(set(wanted) - {normalise_official(layer) for layer in found})
    if missing:
        raise InvalidCheckpoint(
            f"the quantisation metadata of {source.place} names {missing[0]}, which is not in it; download it again"
        )
    return found


def _understood(
    source: TensorSource, layer: str, sides: Mapping[str, str], declared: Mapping[str, str], scaled: bool
) -> _Matrix | None:
    """The matrix of one layer, or None where it is not quantised although helpers stand beside it."""
    name = f"{layer}.weight"
    if name not in source:
        raise InvalidCheckpoint(f"{source.place} has scales for {name}, which is not in it; download it again")
    info = source.infos[name]
    form = _format_of(source, layer, sides, declared)
    if form is None:
        # some converters leave a scale of one beside layers that they did not quantise
        for side in ("scale_weight", "weight_scale"):
            if side in sides and bool((source.tensor(sides[side]).float() != 1).any()):
                raise InvalidCheckpoint(
                    f"tensor {name} in {source.place} is stored as {info.dtype} with a {side} that is not 1; "
                    "what it means is unknown; use another file"
                )
        return None
    if form in ("nf4", "fp4"):
        return _Matrix(source, layer, sides, "nf4", _shape_of_state(source, layer, sides), comfy=False)
    if len(info.shape) != 2:
        raise InvalidCheckpoint(f"tensor {name} in {source.place} has shape {info.shape}; expected a matrix of codes")
    columns = 2 * info.shape[1] if form in ("nvfp4", "q4") else info.shape[1]
    comfy = "comfy_quant" in sides or layer in declared
    matrix = _Matrix(source, layer, sides, form, (info.shape[0], columns), comfy)
    if "pre_quant_scale" in sides:
        raise matrix.wrong("has a pre_quant_scale, which is not supported; use a file without")
    if form == "fp8" and scaled and not sides.keys() & {"weight_scale", "scale_weight"}:
        raise matrix.wrong("is fp8 without a scale in a file with scales; the file is incomplete, download it again")
    return matrix


def _format_of(source: TensorSource, layer: str, sides: Mapping[str, str], declared: Mapping[str, str]) -> str | None:
    """Our name for the format of a layer; None for a plain matrix."""
    if any(state in sides for state in _STATES):
        return "nf4"
    dtype = source.infos[f"{layer}.weight"].dtype
    said = _said(source, sides["comfy_quant"]) if "comfy_quant" in sides else declared.get(layer)
    if said is not None:
        if said not in _FORMATS:
            raise InvalidCheckpoint(
                f"tensor {layer}.weight in {source.place} has the format {said!r}; known are {', '.join(_FORMATS)}"
            )
        if _FORMATS[said] != dtype:
            raise InvalidCheckpoint(
                f"tensor {layer}.weight in {source.place} is said to be {said}, but is stored as {dtype}; "
                "the file is damaged, download it again"
            )
        return {torch.uint8: said, torch.int8: "int8"}.get(dtype, "fp8")
    if dtype in FP8:
        return "fp8"
    if dtype is torch.int8:
        return "int8"
    if dtype is torch.uint8 and "weight_scale_2" in sides:
        return "nvfp4"
    if dtype in (torch.float32, torch.bfloat16, torch.float16):
        return None
    raise InvalidCheckpoint(
        f"tensor {layer}.weight in {source.place} is stored as {dtype} with {', '.join(sorted(sides)) or 'no scale'}; "
        "this is no known format; use another file"
    )


def _said(source: TensorSource, name: str) -> str:
    """The format in the JSON that a `comfy_quant` tensor holds."""
    return str(_json_in(source, name).get("format"))


def _json_in(source: TensorSource, name: str) -> dict[str, object]:
    """A JSON object that is stored as the bytes of a tensor."""
    info = source.infos[name]
    try:
        if info.dtype is not torch.uint8 or info.memory_bytes > MAX_JSON_BYTES:
            raise ValueError(f"{info.memory_bytes} bytes of {info.dtype}")
        value = json.loads(bytes(source.tensor(name).flatten().tolist()))
        if not isinstance(value, dict):
            raise TypeError("no object")
    except (ValueError, TypeError, RecursionError) as error:
        raise InvalidCheckpoint(
            f"tensor {name} in {source.place} holds no JSON object ({first_line(error)}); download the file again"
        ) from error
    return value


def _state(source: TensorSource, sides: Mapping[str, str]) -> dict[str, object]:
    return _json_in(source, next(sides[state] for state in _STATES if state in sides))


def _shape_of_state(source: TensorSource, layer: str, sides: Mapping[str, str]) -> tuple[int, int]:
    """The real shape of a bitsandbytes matrix, checked against its codes."""
    shape = _state(source, sides).get("shape")
    codes = source.infos[f"{layer}.weight"]
    if (
        not isinstance(shape, list)
        or len(shape) != 2
        or not all(type(side) is int and side > 0 for side in shape)
        or codes.dtype is not torch.uint8
        or shape[0] * shape[1] != 2 * torch.Size(codes.shape).numel()
    ):
        raise InvalidCheckpoint(
            f"tensor {layer}.weight in {source.place} has {codes.shape} codes for a matrix said to be {shape}; "
            "the file is damaged, download it again"
        )
    return shape[0], shape[1]


def _read_fp8(matrix: _Matrix, dtype: torch.dtype) -> QuantisedLinear:
    codes = matrix.codes()
    plain = not matrix.sides.keys() & {"weight_scale", "scale_weight"}
    scale = torch.ones(1) if plain else matrix.scale("weight_scale", "scale_weight")
    return Fp8Linear(codes, _by_row(matrix, scale), dtype)


def _read_int8(matrix: _Matrix, dtype: torch.dtype) -> QuantisedLinear:
    return Int8Linear(matrix.codes(), _by_row(matrix, matrix.scale("weight_scale")), dtype)


def _by_row(matrix: _Matrix, scale: Tensor) -> Tensor:
    """One scale, or one for each row."""
    if scale.numel() != 1 and tuple(scale.shape) not in {(matrix.shape[0],), (matrix.shape[0], 1)}:
        raise matrix.wrong(
            f"has {tuple(scale.shape)} scales for {matrix.shape[0]} rows; expected 1 or one for each row"
        )
    return scale


def _read_q4(matrix: _Matrix, dtype: torch.dtype) -> QuantisedLinear:
    scale = matrix.scale("weight_scale")
    expected = (matrix.shape[0], matrix.shape[1] // Q4_GROUP)
    if tuple(scale.shape) != expected or matrix.shape[1] % Q4_GROUP:
        raise matrix.wrong(f"has {tuple(scale.shape)} scales; expected {expected}; the file is damaged")
    return Q4Linear(matrix.codes(), scale, dtype)


def _read_nvfp4(matrix: _Matrix, dtype: torch.dtype) -> QuantisedLinear:
    codes, scale, whole = matrix.codes(), matrix.scale("weight_scale"), matrix.scale("weight_scale_2")
    rows, groups = matrix.shape[0], matrix.shape[1] // NVFP4_GROUP
    shape = tiled_shape(rows, groups) if matrix.comfy else (rows, groups)
    if scale.dtype is not torch.float8_e4m3fn or scale.numel() != shape[0] * shape[1] or whole.numel() != 1:
        raise matrix.wrong(
            f"has {tuple(scale.shape)} group scales of {scale.dtype}; expected {shape} of float8_e4m3fn; "
            "the file is damaged or arranged in an unknown way"
        )
    if matrix.comfy:
        codes, scale = swap_nibbles(codes), untile_scales(scale.flatten(), rows, groups)
    return Nvfp4Linear(codes, scale.view(rows, groups), whole, dtype)


def _read_nf4(matrix: _Matrix, dtype: torch.dtype) -> QuantisedLinear:
    state = _state(matrix.source, matrix.sides)
    absmax, table = (
        matrix.source.tensor(matrix.sides["weight.absmax"]),
        matrix.source.tensor(_side(matrix, "weight.quant_map")),
    )
    nested = None
    if "weight.nested_absmax" in matrix.sides:
        block, offset = state.get("nested_blocksize"), state.get("nested_offset")
        if not isinstance(block, int) or not isinstance(offset, int | float):
            raise matrix.wrong("has nested scales without their size; the file is damaged")
        inner = matrix.source.tensor(_side(matrix, "weight.nested_quant_map"))
        nested = Nested(inner, matrix.scale("weight.nested_absmax"), block, float(offset))
    scale = block_scales(absmax, nested)
    block = state.get("blocksize")
    if table.numel() != 16 or block != matrix.shape[0] * matrix.shape[1] // max(scale.numel(), 1):
        raise matrix.wrong(f"has {scale.numel()} scales for blocks of {block}; the file is damaged")
    if not torch.isfinite(scale).all() or not torch.isfinite(table).all():
        raise matrix.wrong("has scales that are not finite; the file is damaged, copy it again")
    return Nf4Linear(matrix.codes(), table, scale, matrix.shape, dtype)


def _side(matrix: _Matrix, name: str) -> str:
    if name not in matrix.sides:
        raise matrix.wrong(f"has no {name}; the file is incomplete, download it again")
    return matrix.sides[name]


_READERS: Final[Mapping[str, Callable[[_Matrix, torch.dtype], QuantisedLinear]]] = {
    "fp8": _read_fp8,
    "int8": _read_int8,
    "q4": _read_q4,
    "nvfp4": _read_nvfp4,
    "nf4": _read_nf4,
}


def stored_format(source: TensorSource) -> str:
    """The format of most quantised matrices of a checkpoint, "none" if there are none."""
    if isinstance(source, PackedSource):
        forms = list(source.formats.values())
    elif isinstance(source, GgufSource | GgufTower):
        forms = [f"gguf-{kind.lower()}" for kind in source.kinds if kind in BLOCK_FORMATS]
    else:
        forms = []
    return max(set(forms), key=forms.count) if forms else "none"
