"""From any checkpoint to a file or folder in another layout or number format, one tensor at a time."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from licht.checkpoint.detect import Layout
from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.names import Piece, autoencoder_layout, official_layout, transformer_layout
from licht.checkpoint.reader import read_json
from licht.checkpoint.save import TOWER_PREFIX, write_json
from licht.checkpoint.stream import Planned, write_stream
from licht.core.errors import InvalidRequest, NotAvailable, OutputExists, OutputFailed
from licht.model.autoencoder import Autoencoder
from licht.model.linear import StackedLinear
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Variant
from licht.quant.linear import StackedLayers
from licht.quant.nvfp4 import GROUP as NVFP4_GROUP
from licht.quant.nvfp4 import swap_nibbles, tile_scales, tiled_shape
from licht.quant.q4 import GROUP as Q4_GROUP
from licht.quant.swap import quantise, worth_quantising, worth_storing_small

FORMATS: Final = ("none", "fp8", "int8", "q4", "nvfp4", "gguf-q8_0", "gguf-q5_0", "gguf-q4_0")
"""What a transformer and its tower can be written in."""
UNWRITTEN: Final = ("gguf-q4_k", "gguf-q5_k", "gguf-q6_k")
"""What can be read only."""
_DECLARED: Final = {"fp8": "float8_e4m3fn", "int8": "int8_rowwise", "nvfp4": "nvfp4", "q4": "q4"}
"""Our name -> the name in the file's metadata; fp8 and nvfp4 files are those that ComfyUI writes."""
_GGUF: Final = "gguf-"

Network = Flux2Transformer | Autoencoder | TextTower
Entries = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]


@dataclass(frozen=True, slots=True)
class Written:
    """One file that was written."""

    path: Path
    size_bytes: int


def convert(
    files: ModelFiles, target: Path, layout: Layout, form: str, progress: Callable[[str], None]
) -> list[Written]:
    """Write a whole model below the folder `target`, its transformer and tower in the format `form`.

    Both layouts are folders of the same parts; they differ in the names of tensors and files. `progress` is told each file before it is written. Raises `OutputExists`
    if `target` holds anything, `InvalidRequest` for a combination that does not exist.
    """
    _check(form, layout)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise OutputExists(f"{target} is there already; choose a new folder", field="output")
    cpu = Placement(torch.device("cpu"), None)
    official = layout is Layout.OFFICIAL
    variant = files.variant
    metadata = {"licht.kind": variant.kind.value}
    stem = variant.transformer_file or f"{variant.name}.safetensors"
    places = {
        "transformer": Path("transformer") / (stem if official else "diffusion_pytorch_model.safetensors"),
        "vae": Path("vae") / ("ae.safetensors" if official else "diffusion_pytorch_model.safetensors"),
        "text_encoder": Path("text_encoder") / "model.safetensors",
    }
    written = []
    for part, place in places.items():
        progress(str(place))
        network: Network
        if part == "transformer":
            network = load_transformer(files.transformer, cpu, files.transformer_config)
        elif part == "vae":
            network = load_autoencoder(files.autoencoder, cpu, files.autoencoder_config)
        else:
            network = load_tower(files.tower, cpu, variant.text)
        if part == "transformer" and form.startswith(_GGUF):
            path = (target / place).with_suffix(".gguf")
            written.append(Written(path, write_gguf(network, path, form.removeprefix(_GGUF).upper())))
            continue
        small = form if part != "vae" and not form.startswith(_GGUF) else "none"
        written.append(Written(target / place, write_network(network, target / place, layout, Forms(small), metadata)))
        del network
    _describe(files, target, layout)
    return written


@dataclass(frozen=True, slots=True)
class Forms:
    """What the large matrices of a network are written in."""

    blocks: str = "none"
    outside: str = "none"
    """Modulation, text and time embedders of a transformer."""

    def of(self, layer: str, shape: tuple[int, ...]) -> str:
        """The form of the weight of the layer with this official name."""
        if worth_quantising(layer, shape):
            return self.blocks
        return self.outside if worth_storing_small(layer, shape) else "none"


def write_network(network: Network, path: Path, layout: Layout, forms: Forms, metadata: Mapping[str, str]) -> int:
    """Write one network to one file, quantised while it is written; returns the number of bytes."""
    pieces = _pieces(network, layout)
    planned, layers = [], {}
    for piece in pieces:
        owner, _, leaf = piece.official.rpartition(".")
        shape, dtype = _stored_shape(network, piece)
        form = forms.of(owner, shape) if leaf == "weight" else "none"
        if form != "none":
            layer = piece.foreign.removesuffix(".weight")
            layers[layer] = {"format": _DECLARED[form]}
            entries = quantised_entries(layer, form, (shape[0], shape[1]))
            planned.append(Planned(entries, _quantised_maker(network, piece, layer, form)))
        else:
            planned.append(Planned({piece.foreign: (dtype, shape)}, _plain_maker(network, piece)))
    said = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})} if layers else {}
    return write_stream(path, planned, {**metadata, **said})


def quantised_entries(layer: str, form: str, shape: tuple[int, int]) -> Entries:
    """What a quantised matrix of this shape is stored as."""
    rows, columns = shape
    if form == "nvfp4":
        return {
            f"{layer}.weight": (torch.uint8, (rows, columns // 2)),
            f"{layer}.weight_scale": (torch.float8_e4m3fn, tiled_shape(rows, columns // NVFP4_GROUP)),
            f"{layer}.weight_scale_2": (torch.float32, ()),
        }
    if form == "q4":
        return {
            f"{layer}.weight": (torch.uint8, (rows, columns // 2)),
            f"{layer}.weight_scale": (torch.float16, (rows, columns // Q4_GROUP)),
        }
    codes = torch.float8_e4m3fn if form == "fp8" else torch.int8
    return {f"{layer}.weight": (codes, shape), f"{layer}.weight_scale": (torch.float32, (rows,))}


def quantised_tensors(layer: str, form: str, weight: Tensor) -> dict[str, Tensor]:
    """A matrix as it is stored."""
    made = dict(quantise(weight, form, torch.float32).named_buffers())
    if form != "nvfp4":
        return {f"{layer}.weight": made["codes"], f"{layer}.weight_scale": made["scale"]}
    return {
        f"{layer}.weight": swap_nibbles(made["codes"]),
        f"{layer}.weight_scale": tile_scales(made["scale"]),
        f"{layer}.weight_scale_2": made["whole"],
    }


def write_gguf(network: Network, path: Path, kind: str) -> int:
    """Write a transformer as GGUF in one of the block formats that the gguf package packs; returns the bytes.

    Official names and the architecture "flux", as other programs expect. Small tensors and those outside of blocks
    keep their precision. Raises `NotAvailable` without the gguf package, `OutputFailed` if the disk refuses.
    """
    try:
        import gguf
    except ImportError as error:
        raise NotAvailable("GGUF files need the gguf package: install it with pip install gguf") from error
    block = gguf.GGMLQuantizationType[kind]
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = gguf.GGUFWriter(temporary, "flux", use_temp_file=True)
        for piece in _pieces(network, Layout.OFFICIAL):
            tensor = _rows(network, piece)
            owner = piece.official.rpartition(".")[0]
            if worth_quantising(owner, tuple(tensor.shape)):
                writer.add_tensor(piece.foreign, gguf.quants.quantize(tensor.float().numpy(), block), raw_dtype=block)
            elif tensor.dtype is torch.bfloat16 and tensor.ndim > 1:
                raw = tensor.contiguous().view(torch.uint8).numpy()
                writer.add_tensor(piece.foreign, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
            else:
                writer.add_tensor(piece.foreign, np.ascontiguousarray(tensor.float().numpy()))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        temporary.replace(path)
    except OSError as error:
        raise OutputFailed(f"{path} cannot be written ({error.strerror or error}); make room") from error
    finally:
        temporary.unlink(missing_ok=True)
    return path.stat().st_size


def _check(form: str, layout: Layout) -> None:
    if form in UNWRITTEN:
        raise InvalidRequest(
            f"{form} is read but not written: the gguf package cannot quantise to it; use gguf-q4_0, gguf-q5_0 or "
            "gguf-q8_0, or convert that file with llama-quantize",
            field="quant",
        )
    if form not in FORMATS:
        raise InvalidRequest(f"the format {form!r} is unknown; use one of {', '.join(FORMATS)}", field="quant")
    if form.startswith(_GGUF) and layout is not Layout.OFFICIAL:
        raise InvalidRequest(f"{form} files have official names; use --to bfl", field="quant")


def _pieces(network: Network, layout: Layout) -> Sequence[Piece]:
    names = list(_official_names(network))
    if isinstance(network, TextTower):
        return [Piece(name, TOWER_PREFIX + name) for name in names]
    if layout is Layout.OFFICIAL:
        return official_layout(names)
    return (
        autoencoder_layout(network.config) if isinstance(network, Autoencoder) else transformer_layout(network.config)
    )


def _official_names(network: Network) -> Iterator[str]:
    """The names of an unquantised network of these sizes, in order."""
    with torch.device("meta"):
        fresh = type(network)(network.config)  # type: ignore[arg-type]  # each of the three takes its own config
    yield from (name for name in fresh.state_dict() if not name.endswith("num_batches_tracked"))


def _stored_shape(network: Network, piece: Piece) -> tuple[tuple[int, ...], torch.dtype]:
    """Shape and dtype of a piece, as it is written plainly."""
    owner = network.get_submodule(piece.official.rpartition(".")[0])
    if isinstance(owner, StackedLinear):
        rows = sum(block.shape[0] for block in owner.blocks)
        return piece.foreign_shape((rows, owner.blocks[0].shape[1])), owner.blocks[0].dtype
    out, inside = getattr(owner, "out_features", None), getattr(owner, "in_features", None)
    if isinstance(out, int) and isinstance(inside, int) and not isinstance(owner, nn.Linear):
        return piece.foreign_shape((out, inside)), torch.bfloat16
    tensor = owner.weight if isinstance(owner, StackedLayers) else getattr(owner, piece.official.rpartition(".")[2])
    return piece.foreign_shape(tuple(tensor.shape)), tensor.dtype


def _rows(network: Network, piece: Piece) -> Tensor:
    """The rows of one piece; those of a stacked layer without fusing it."""
    owner_name, _, leaf = piece.official.rpartition(".")
    owner = network.get_submodule(owner_name)
    if isinstance(owner, StackedLinear) and len(owner.blocks) == piece.parts:
        block: Tensor = owner.blocks[piece.part]
        return block
    tensor: Tensor = getattr(owner, leaf)
    return piece.to_foreign(tensor)


def _plain_maker(network: Network, piece: Piece) -> Callable[[], Mapping[str, Tensor]]:
    return lambda: {piece.foreign: _rows(network, piece)}


def _quantised_maker(network: Network, piece: Piece, layer: str, form: str) -> Callable[[], Mapping[str, Tensor]]:
    return lambda: quantised_tensors(layer, form, _rows(network, piece))


def _describe(files: ModelFiles, target: Path, layout: Layout) -> None:
    """Write what the weights do not say: descriptions, configurations, the tokenizer."""
    parts = files.parts
    sources = {"transformer": parts.transformer, "vae": parts.autoencoder, "text_encoder": parts.text_encoder}
    only_texts = shutil.ignore_patterns("*.safetensors", "*.safetensors.index.json", "*.gguf")
    try:
        shutil.copytree(parts.tokenizer, target / "tokenizer", ignore=only_texts)
        for part, path in sources.items():
            if (path / "config.json").is_file():
                said = read_json(path / "config.json")
                write_json(target / part / "config.json", {k: v for k, v in said.items() if k != "quantization_config"})
        index = parts.transformer.parent / "model_index.json"
        if layout is Layout.DIFFUSERS and parts.transformer.is_dir() and index.is_file():
            shutil.copyfile(index, target / index.name)
            if (index.parent / "scheduler").is_dir():
                shutil.copytree(index.parent / "scheduler", target / "scheduler")
        write_json(target / "licht.json", description(files.variant, files.template))
    except OSError as error:
        raise OutputFailed(f"{target} cannot be written ({error.strerror or error}); make room") from error


def description(variant: Variant, template: str | None) -> dict[str, object]:
    """The licht.json of a variant."""
    said: dict[str, object] = {
        "kind": variant.kind.value,
        "text_layers": list(variant.text.layers),
        "text_length": variant.text.length,
        "trained_sizes": [[size.width, size.height] for size in variant.trained_sizes],
        "max_references": variant.max_references,
        "caches_references": variant.caches_references,
        "default_steps": variant.default_steps,
        "default_guidance": variant.default_guidance,
    }
    if variant.structured_prompts:
        said["structured_prompts"] = True
    if variant.extra_reference_px == variant.single_reference_px:
        said["reference_area_px"] = variant.extra_reference_px
    return said if template is None else {**said, "template": template}
