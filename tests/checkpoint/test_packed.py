import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from licht.checkpoint.detect import Layout
from licht.checkpoint.load import Placement, load_transformer
from licht.checkpoint.packed import PackedSource, open_weights
from licht.checkpoint.save import official_tensors
from licht.core.errors import InvalidCheckpoint
from licht.model.transformer import Flux2Transformer
from licht.quant.linear import QuantisedLinear, StackedLayers
from tests.support import models, packed
from tests.support.raw import rewrite

FLOAT32 = Placement(torch.device("cpu"), torch.float32)
CONFIG = {"axes_dims_rope": [8, 8, 8, 8]}
LAYER = "double_blocks.0.img_attn.proj"


def load(path: Path, placement: Placement = FLOAT32) -> Flux2Transformer:
    return load_transformer(open_weights(path), placement, CONFIG)


def check(network: Flux2Transformer, meaning: Mapping[str, Tensor], form: str) -> None:
    """Every matrix of the blocks is a layer of this format and means what the file's author meant."""
    for name, expected in meaning.items():
        owner = network.get_submodule(name.rpartition(".")[0])
        if packed.in_blocks(name):
            layers = owner.layers if isinstance(owner, StackedLayers) else [owner]
            assert all(isinstance(layer, QuantisedLinear) and layer.format == form for layer in layers), name
        found = getattr(owner, name.rpartition(".")[2])
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


CASES: dict[str, tuple[Callable[[str, Tensor], packed.Made], dict[str, Any], str]] = {
    "old scaled fp8": (packed.old_fp8, {"mark": True}, "fp8"),
    "old scaled fp8 without a mark": (packed.old_fp8, {}, "fp8"),
    "new fp8 by metadata": (packed.new_fp8, {"metadata": "float8_e4m3fn"}, "fp8"),
    "new fp8 by tensor": (packed.new_fp8, {"comfy_quant": "float8_e4m3fn"}, "fp8"),
    "e5m2": (packed.e5m2, {"comfy_quant": "float8_e5m2"}, "fp8"),
    "official fp8 by row": (packed.row_fp8, {}, "fp8"),
    "cast fp8": (packed.cast_fp8, {}, "fp8"),
    "int8": (packed.int8, {"comfy_quant": "int8_tensorwise"}, "int8"),
    "modelopt nvfp4": (partial(packed.nvfp4, comfy=False), {}, "nvfp4"),
    "official nvfp4": (partial(packed.nvfp4, comfy=True), {"metadata": "nvfp4"}, "nvfp4"),
    "comfy nvfp4 by tensor": (partial(packed.nvfp4, comfy=True), {"comfy_quant": "nvfp4"}, "nvfp4"),
}


@pytest.mark.parametrize("prefix", ["", "model.diffusion_model."])
@pytest.mark.parametrize("case", CASES)
def test_files_mean_what_their_layout_says(case: str, prefix: str, tmp_path: Path) -> None:
    made, more, form = CASES[case]
    meaning = packed.write(tmp_path / "a.safetensors", made, prefix=prefix, **more)
    network = load(tmp_path / "a.safetensors")
    check(network, meaning, form)
    source = open_weights(tmp_path / "a.safetensors")
    assert isinstance(source, PackedSource)
    assert set(source.formats.values()) == {form}
    assert source.memory_bytes < sum(tensor.numel() * 4 for tensor in meaning.values())


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_0", "Q8_0"])
def test_gguf_files_against_the_gguf_package(kind: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer, meaning = gguf.GGUFWriter(tmp_path / "a.gguf", "flux"), {}
    block = gguf.GGMLQuantizationType[kind]
    for name, weight in official_tensors(packed.network()).items():
        meaning[name] = weight
        if packed.in_blocks(name):
            raw = gguf.quants.quantize(weight.numpy(), block)
            writer.add_tensor(name, raw, raw_dtype=block)
            meaning[name] = torch.from_numpy(gguf.quants.dequantize(raw, block))
        elif weight.ndim == 2 and name.startswith("txt_in"):
            meaning[name] = weight.bfloat16().float()
            raw = weight.bfloat16().view(torch.uint8).numpy()
            writer.add_tensor(name, raw, raw_dtype=gguf.GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, np.ascontiguousarray(weight.numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    check(load(tmp_path / "a.gguf"), meaning, "gguf")
    check(load(tmp_path), meaning, "gguf")


@pytest.mark.parametrize("nested", [False, True])
def test_bitsandbytes_folders(nested: bool, tmp_path: Path) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    from licht.checkpoint.names import transformer_layout

    tensors, meaning = {}, {}
    exact = official_tensors(packed.network())
    for piece in transformer_layout(packed.SIZES):
        weight = piece.to_foreign(exact[piece.official]).contiguous()
        if not packed.in_blocks(piece.official):
            tensors[piece.foreign] = meaning[piece.foreign] = weight
            continue
        codes, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=nested)
        tensors[piece.foreign] = codes
        tensors |= {f"{piece.foreign}.{key}": value for key, value in state.as_dict(packed=True).items()}
        meaning[piece.foreign] = functional.dequantize_4bit(codes, state)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
    network = load(tmp_path)
    for piece in transformer_layout(packed.SIZES):
        owner = network.get_submodule(piece.official.rpartition(".")[0])
        found = piece.to_foreign(getattr(owner, piece.official.rpartition(".")[2]))
        torch.testing.assert_close(found, meaning[piece.foreign], rtol=1e-6, atol=1e-7)
    assert isinstance(network.get_submodule("double_blocks.0.img_attn.qkv"), StackedLayers)


def test_a_quantised_last_layer_of_the_other_layout_is_dequantised_and_swapped(tmp_path: Path) -> None:
    exact = official_tensors(packed.network())["final_layer.adaLN_modulation.1.weight"]
    from licht.checkpoint.save import Target, save_network

    save_network(packed.network(), Target(tmp_path, "a"), Layout.DIFFUSERS)
    foreign = load_file(tmp_path / "a.safetensors")["norm_out.linear.weight"]
    stored, values = packed.row_fp8("norm_out.linear", foreign)
    rewrite(tmp_path / "a.safetensors", stored)
    layer = load(tmp_path).final_layer.adaLN_modulation[1]
    assert isinstance(layer, nn.Linear)
    half = exact.shape[0] // 2
    torch.testing.assert_close(layer.weight, torch.cat([values[half:], values[:half]]), rtol=0.01, atol=1e-6)


@pytest.mark.parametrize("form", ["fp8", "int8", "q4", "nvfp4"])
@pytest.mark.parametrize("layout", list(Layout))
def test_quantising_while_reading(form: str, layout: Layout, tmp_path: Path) -> None:
    from licht.checkpoint.save import Target, save_network

    save_network(packed.network(), Target(tmp_path, "a"), layout)
    network = load(tmp_path, Placement(torch.device("cpu"), torch.float32, form))
    exact = official_tensors(packed.network())
    for name, layer in network.named_modules():
        if isinstance(layer, QuantisedLinear):
            assert layer.format == form
            error = (layer.weight - exact[f"{name}.weight"]).norm() / exact[f"{name}.weight"].norm()
            assert 0 < error < {"fp8": 0.03, "int8": 0.01, "q4": 0.1, "nvfp4": 0.11}[form]
    quantised = {name for name, layer in network.named_modules() if isinstance(layer, QuantisedLinear)}
    assert quantised == {name.removesuffix(".weight") for name in exact if packed.in_blocks(name)}
    assert isinstance(network.img_in, nn.Linear)


BROKEN: dict[str, tuple[str, dict[str, Tensor | None]]] = {
    "fp8 without a scale in a file with scales": ("fp8", {f"{LAYER}.weight_scale": None}),
    "not finite or negative": ("fp8", {f"{LAYER}.weight_scale": torch.tensor(torch.nan)}),
    "weight_scale that is not finite or negative": ("fp8", {f"{LAYER}.weight_scale": torch.tensor(-1.0)}),
    "expected 1 or one for each row": ("fp8", {f"{LAYER}.weight_scale": torch.ones(5)}),
    "codes that are not finite": (
        "fp8",
        {f"{LAYER}.weight": torch.full((64, 64), 0x7F, dtype=torch.uint8).view(torch.float8_e4m3fn)},
    ),
    "pre_quant_scale, which is not supported": ("fp8", {f"{LAYER}.pre_quant_scale": torch.ones(64)}),
    "is said to be float8_e4m3fn, but is stored as torch.int8": (
        "fp8",
        {f"{LAYER}.weight": torch.ones(64, 64, dtype=torch.int8)},
    ),
    "has scales for .*nowhere.weight": ("fp8", {"nowhere.weight_scale": torch.ones(1)}),
    "the format 'mxfp8'": (
        "fp8",
        {f"{LAYER}.comfy_quant": torch.tensor(list(b'{"format": "mxfp8"}'), dtype=torch.uint8)},
    ),
    "holds no JSON object": ("fp8", {f"{LAYER}.comfy_quant": torch.tensor(list(b"[]"), dtype=torch.uint8)}),
    "holds no JSON": ("fp8", {f"{LAYER}.comfy_quant": torch.zeros(5000, dtype=torch.uint8)}),
    "has no weight_scale_2": ("nvfp4", {f"{LAYER}.weight_scale_2": None}),
    "group scales of torch.float8_e4m3fn": (
        "nvfp4",
        {f"{LAYER}.weight_scale": torch.zeros(64, 4).to(torch.float8_e4m3fn)},
    ),
    "group scales of torch.float32": ("nvfp4", {f"{LAYER}.weight_scale": torch.zeros(128, 4)}),
    "has shape .*expected .64, 64.": ("nvfp4", {f"{LAYER}.weight": torch.zeros(64, 48, dtype=torch.uint8)}),
    "with a weight_scale that is not 1": ("fp8 by tensor", {"img_in.weight_scale": torch.tensor(0.5)}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_does_not_fit_together_is_refused(message: str, tmp_path: Path) -> None:
    form, changes = BROKEN[message]
    path = tmp_path / "a.safetensors"
    if form == "nvfp4":
        packed.write(path, partial(packed.nvfp4, comfy=True), metadata="nvfp4")
        layers = {
            name.removesuffix(".weight"): {"format": "nvfp4"}
            for name in official_tensors(packed.network())
            if packed.in_blocks(name)
        }
        rewrite(path, changes, {"_quantization_metadata": json.dumps({"layers": layers})})
    else:
        packed.write(path, packed.new_fp8, comfy_quant="float8_e4m3fn")
        rewrite(path, changes)
    with pytest.raises(InvalidCheckpoint, match=message):
        load(path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "cannot be read"),
        ("{}", "cannot be read"),
        ('{"layers": []}', "cannot be read"),
        ('{"layers": {"nowhere": {"format": "nvfp4"}}}', "names nowhere"),
        (json.dumps({"layers": {LAYER: {"format": "convrot_w4a4"}}}), "the format 'convrot_w4a4'"),
    ],
)
def test_broken_metadata_is_refused(said: str, message: str, tmp_path: Path) -> None:
    packed.write(tmp_path / "a.safetensors", packed.new_fp8)
    rewrite(tmp_path / "a.safetensors", {}, {"_quantization_metadata": said})
    with pytest.raises(InvalidCheckpoint, match=message):
        load(tmp_path / "a.safetensors")


def test_a_scale_of_one_beside_a_plain_matrix_is_let_be(tmp_path: Path) -> None:
    meaning = packed.write(tmp_path / "a.safetensors", packed.old_fp8, mark=True)
    rewrite(tmp_path / "a.safetensors", {"txt_in.scale_weight": torch.ones(1)})
    network = load(tmp_path / "a.safetensors")
    assert isinstance(network.txt_in, nn.Linear)
    check(network, meaning, "fp8")


@pytest.mark.parametrize("keep", [3, 20, 200, 5000])
def test_a_cut_gguf_file_is_refused(keep: int, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "a.gguf", "flux")
    writer.add_tensor("img_in.weight", np.ones((64, 64), dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    (tmp_path / "a.gguf").write_bytes((tmp_path / "a.gguf").read_bytes()[:keep])
    with pytest.raises(InvalidCheckpoint):
        open_weights(tmp_path / "a.gguf")


def test_a_gguf_header_with_endless_counts_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + (10**12).to_bytes(8, "little") * 2 + bytes(100))
    with pytest.raises(InvalidCheckpoint, match="at most"):
        open_weights(path)


def test_plain_files_stay_what_they_are(tmp_path: Path) -> None:
    models.write_folder(tmp_path / "m", models.Recipe())
    assert not isinstance(open_weights(tmp_path / "m" / "transformer"), PackedSource)
