"""Strict, streamed loading: every tensor is accounted for before the first one is read, and none is held twice."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from licht.checkpoint.detect import (
    Config,
    Layout,
    autoencoder_config,
    autoencoder_layout_of,
    transformer_config,
    transformer_layout_of,
)
from licht.checkpoint.names import (
    Change,
    Piece,
    autoencoder_layout,
    normalise_official,
    official_layout,
    tower_name,
    transformer_layout,
)
from licht.checkpoint.reader import TensorSource
from licht.core.errors import InvalidCheckpoint
from licht.model.autoencoder import Autoencoder
from licht.model.linear import StackedLinear
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import TextConfig
from licht.quant.linear import StackedLayers
from licht.quant.pages import mappings
from licht.quant.swap import quantise, worth_quantising

_IGNORED = {"bn.num_batches_tracked"}
"""State of the batch norm that plays no part in evaluation and that some files leave out."""
_DENSE = {"img_in"}
"""Layers that are never quantised in memory: the network's dtype and device are read off them."""
_FLOATS = {torch.float64, torch.float32, torch.float16, torch.bfloat16}


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a network's weights go. `dtype` None keeps the file's own.

    `quant` is a format that the matrices of the blocks are quantised to as they are read, one after the other.
    """

    device: torch.device
    dtype: torch.dtype | None
    quant: str | None = None

    @property
    def compute_dtype(self) -> torch.dtype:
        """What quantised layers compute in."""
        return self.dtype or torch.bfloat16


def load_transformer(source: TensorSource, placement: Placement, config: Config) -> Flux2Transformer:
    """Load a flow transformer in either layout. Raises `InvalidCheckpoint` naming what is wrong."""
    layout = transformer_layout_of(source)
    sizes = transformer_config(source, layout, config)
    with torch.device("meta"):
        module = Flux2Transformer(sizes)
    if layout is Layout.DIFFUSERS:
        load_into(module, source, transformer_layout(sizes), {name: name for name in source}, placement)
    else:
        load_official(module, source, placement)
    return module.eval().requires_grad_(False)


def load_autoencoder(source: TensorSource, placement: Placement, config: Config) -> Autoencoder:
    """Load an autoencoder in either layout. Raises `InvalidCheckpoint` naming what is wrong."""
    layout = autoencoder_layout_of(source)
    sizes = autoencoder_config(source, layout, config)
    with torch.device("meta"):
        module = Autoencoder(sizes)
    if layout is Layout.DIFFUSERS:
        load_into(module, source, autoencoder_layout(sizes), {name: name for name in source}, placement)
    else:
        load_official(module, source, placement)
    variance = dict(module.bn.named_buffers())["running_var"]
    if (variance < 0).any():
        raise InvalidCheckpoint(f"bn.running_var in {source.place} has negative values; the file is damaged")
    if placement.device.type == "cpu" and placement.dtype is torch.bfloat16:
        # a processor's bfloat16 convolutions are twice as fast with channels last, and need no copies of their maps
        module = module.to(memory_format=torch.channels_last)
    return module.eval().requires_grad_(False)


def load_tower(source: TensorSource, placement: Placement, text: TextConfig) -> TextTower:
    """Load the layers of a language model that `text` uses. Raises `InvalidCheckpoint` naming what is wrong."""
    with torch.device("meta"):
        module = TextTower(text)
    renamed = {name: ours for name in source if (ours := tower_name(name, text.layers_used)) is not None}
    load_into(module, source, official_layout(module.state_dict()), renamed, placement)
    return module.eval().requires_grad_(False)


def load_official(module: nn.Module, source: TensorSource, placement: Placement) -> None:
    """Fill `module` from a file with official names."""
    renamed = {name: normalise_official(name) for name in source}
    load_into(module, source, official_layout(module.state_dict()), renamed, placement)


def load_into(
    module: nn.Module, source: TensorSource, pieces: list[Piece], renamed: Mapping[str, str], placement: Placement
) -> None:
    """Fill a module built on the meta device.

    `renamed` maps the names in the file to the foreign names of `pieces`; what it leaves out is not needed. Tensors
    that need no change stay mapped. Raises `InvalidCheckpoint` for missing, unknown, mis-shaped, integer or
    non-finite tensors, before anything of the module was replaced if names or shapes are to blame.
    """
    in_file = {ours: name for name, ours in renamed.items()}
    if len(in_file) != len(renamed):
        twice = next(name for name, ours in renamed.items() if in_file[ours] != name)
        raise InvalidCheckpoint(
            f"{source.place} holds {renamed[twice]} twice, as {twice} and as {in_file[renamed[twice]]}; keep one of them"
        )
    expected = {name: tensor for name, tensor in module.state_dict().items() if name not in _IGNORED}
    by_official: dict[str, list[Piece]] = defaultdict(list)
    for piece in pieces:
        if piece.official in expected:
            by_official[piece.official].append(piece)
    _check_names(source, in_file, by_official)
    for name, parts in by_official.items():
        _check_shapes(source, in_file, expected[name], parts)
    held = mappings()
    for name, parts in by_official.items():
        _place_tensor(module, name, parts, source, in_file, placement)
        # reading and checking touched the whole of them; what is used in place is mapped again when it is used
        held.let_go(source.stored(in_file[piece.foreign]) for piece in parts)
    _finish_ignored(module, placement)


def _check_names(source: TensorSource, in_file: Mapping[str, str], by_official: Mapping[str, list[Piece]]) -> None:
    wanted = {piece.foreign for parts in by_official.values() for piece in parts}
    missing = sorted(wanted - set(in_file))
    unknown = sorted(set(in_file) - wanted - _IGNORED)
    for what, names in (("lacks", missing), ("has the unknown tensors", unknown)):
        if names:
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InvalidCheckpoint(
                f"{source.place} {what} {', '.join(names[:3])}{rest}; expected exactly the {len(wanted)} tensors "
                "of this model; download or copy it again"
            )


def _check_shapes(source: TensorSource, in_file: Mapping[str, str], expected: Tensor, parts: list[Piece]) -> None:
    for piece in parts:
        info = source.infos[in_file[piece.foreign]]
        shape = piece.foreign_shape(tuple(expected.shape))
        if info.shape != shape:
            raise InvalidCheckpoint(
                f"tensor {in_file[piece.foreign]} in {source.place} has shape {info.shape}; expected {shape}; "
                "the file is damaged or of another model"
            )
        if info.dtype not in _FLOATS:
            raise InvalidCheckpoint(
                f"tensor {in_file[piece.foreign]} in {source.place} is stored as {info.dtype}; "
                "use weights in float32, bfloat16 or float16"
            )


def _place_tensor(
    module: nn.Module,
    name: str,
    parts: list[Piece],
    source: TensorSource,
    in_file: Mapping[str, str],
    placement: Placement,
) -> None:
    """Read the pieces of one official tensor and hand it to the module."""
    layer = _quantised_layer(module, name, parts, source, in_file, placement)
    if layer is not None:
        parent, _, child = name.removesuffix(".weight").rpartition(".")
        setattr(module.get_submodule(parent), child, layer.to(placement.device))
        return
    read = [_read(source, in_file[piece.foreign]) for piece in parts]
    rows = [piece.to_official(tensor) for piece, tensor in zip(parts, read, strict=True)]
    target = placement.dtype or rows[0].dtype
    owner, _, leaf = name.rpartition(".")
    if len(rows) == 1:
        _assign(module.get_submodule(owner), leaf, rows[0].to(placement.device, target))
    elif placement.device.type == "cpu" and all(row.dtype == target for row in rows):
        parent, _, child = owner.rpartition(".")
        setattr(module.get_submodule(parent), child, StackedLinear(rows))
    else:
        _assign(module.get_submodule(owner), leaf, _fused(rows, placement.device, target))


def _quantised_layer(
    module: nn.Module,
    name: str,
    parts: list[Piece],
    source: TensorSource,
    in_file: Mapping[str, str],
    placement: Placement,
) -> nn.Module | None:
    """The layer of a matrix that is quantised, in the file or now; None for everything else."""
    owner = name.removesuffix(".weight")
    linear = module.get_submodule(owner) if owner != name else None
    if owner in _DENSE or not isinstance(linear, nn.Linear):
        return None
    if any(piece.change is not Change.SAME for piece in parts):
        return None  # rearranged rows: few and small, so they are dequantised
    dtype = placement.compute_dtype
    if placement.quant is not None and worth_quantising(owner, tuple(linear.weight.shape)):
        rows = [_read(source, in_file[piece.foreign]) for piece in parts]
        return quantise(rows[0] if len(rows) == 1 else torch.cat(rows), placement.quant, dtype)
    layers = [source.layer(in_file[piece.foreign], dtype) for piece in parts]
    if all(layer is None for layer in layers):
        return None
    made = [
        layer if layer is not None else _plain_layer(_read(source, in_file[piece.foreign]), dtype)
        for layer, piece in zip(layers, parts, strict=True)
    ]
    return made[0] if len(made) == 1 else StackedLayers(made)


def _plain_layer(weight: Tensor, dtype: torch.dtype) -> nn.Linear:
    """A matrix that is not quantised, beside others that are."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    return layer


def _fused(rows: list[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    """Concatenate row blocks straight into their final place."""
    total = sum(row.shape[0] for row in rows)
    fused = torch.empty(total, *rows[0].shape[1:], device=device, dtype=dtype)
    for target, row in zip(fused.split([row.shape[0] for row in rows]), rows, strict=True):
        target.copy_(row)
    return fused


def _read(source: TensorSource, name: str) -> Tensor:
    tensor = source.tensor(name)
    bad = _count_not_finite(tensor)
    if bad:
        raise InvalidCheckpoint(
            f"tensor {name} in {source.place} has {bad} values that are not finite; the file is damaged, copy it again"
        )
    return tensor


def _count_not_finite(tensor: Tensor) -> int:
    """How many values are NaN or infinite.

    Smallest and largest value tell whether there is any, in one pass without temporaries (a sum would copy a bfloat16
    tensor to float32); only then is each value asked.
    """
    if all(torch.isfinite(extreme) for extreme in torch.aminmax(tensor)):
        return 0
    return int((~torch.isfinite(tensor)).sum())


def _assign(owner: nn.Module, leaf: str, tensor: Tensor) -> None:
    if leaf in dict(owner.named_buffers(recurse=False)):
        owner.register_buffer(leaf, tensor)
    else:
        owner.register_parameter(leaf, nn.Parameter(tensor, requires_grad=False))


def _finish_ignored(module: nn.Module, placement: Placement) -> None:
    """Give a real value to the state that is not loaded."""
    for submodule in module.modules():
        if isinstance(submodule, nn.BatchNorm2d):
            submodule.num_batches_tracked = torch.zeros((), dtype=torch.long, device=placement.device)
