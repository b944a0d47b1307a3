"""Text encoders in GGUF files, written as llama.cpp's converter writes them."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from licht.checkpoint.folder import read_file, read_folder
from licht.checkpoint.load import Placement, load_tower
from licht.checkpoint.packed import open_weights, stored_format
from licht.core.errors import InvalidCheckpoint
from licht.model.variants import Kind, TextConfig, Tower, TowerConfig
from licht.quant.gguf_blocks import GgufLinear
from tests.support import models

gguf = pytest.importorskip("gguf")
CPU = Placement(torch.device("cpu"), torch.float32)
QWEN = TextConfig(TowerConfig(Tower.QWEN3, 300, 32, 64, 4, 4, 2, 16, 1e4, 1e-6), (1, 2, 3), 24)
MISTRAL = TextConfig(TowerConfig(Tower.MISTRAL3, 300, 32, 64, 4, 4, 2, 16, 1e6, 1e-5), (1, 2, 3), 240)
NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
ARCHITECTURES = {"qwen3": QWEN, "llama": MISTRAL, "mistral3": MISTRAL}


def permuted(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """How the converter rearranges queries and keys of models of the Llama family."""
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def write_tower(path: Path, text: TextConfig, architecture: str, **settings: object) -> dict[str, Tensor]:
    """Write a random tower with matrices in Q8_0; returns what its weights mean, by our names."""
    tower = text.tower
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_embedding_length(tower.hidden_size)
    writer.add_feed_forward_length(tower.intermediate_size)
    writer.add_block_count(tower.num_layers)
    writer.add_head_count(tower.num_attention_heads)
    writer.add_head_count_kv(tower.num_key_value_heads)
    writer.add_key_length(tower.head_dim)
    writer.add_rope_freq_base(tower.rope_theta)
    writer.add_layer_norm_rms_eps(tower.rms_norm_eps)
    for key, value in settings.items():
        writer.add_string(f"{architecture}.{key}", str(value))
    meaning = {}
    block = gguf.GGMLQuantizationType.Q8_0
    for name, weight in models.tower(replace(text, layers=(tower.num_layers,))).state_dict().items():
        head, _, rest = name.partition(".")
        number, _, layer = rest.removesuffix(".weight").partition(".")
        theirs = f"blk.{number}.{NAMES[layer]}.weight" if head == "layers" else "token_embd.weight"
        values = weight.numpy()
        if values.ndim == 1:
            writer.add_tensor(theirs, values)
            meaning[name] = weight
            continue
        meaning[name] = torch.from_numpy(gguf.quants.dequantize(gguf.quants.quantize(values, block), block))
        if architecture != "qwen3" and layer.endswith(("q_proj", "k_proj")):
            values = permuted(values, tower.num_attention_heads if layer[-6] == "q" else tower.num_key_value_heads)
        writer.add_tensor(theirs, gguf.quants.quantize(values, block), raw_dtype=block)
    writer.add_tensor("output_norm.weight", np.ones(tower.hidden_size, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meaning


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tower_means_what_was_converted(architecture: str, tmp_path: Path) -> None:
    text = ARCHITECTURES[architecture]
    meaning = write_tower(tmp_path / "a.gguf", text, architecture)
    source = open_weights(tmp_path / "a.gguf")
    network = load_tower(source, CPU, text)
    layers = 0
    for name, layer in network.named_modules():
        if isinstance(layer, GgufLinear):
            torch.testing.assert_close(layer.weight, meaning[f"{name}.weight"], rtol=1e-6, atol=1e-7)
            layers += 1
    assert layers == 3 * 7
    # the embedding is dequantised to bfloat16
    torch.testing.assert_close(
        network.embed_tokens.weight, meaning["embed_tokens.weight"].bfloat16().float(), rtol=0, atol=0
    )
    assert stored_format(source) == "gguf-q8_0"
    expected = models.tower(text)
    expected.load_state_dict({name: meaning[name] for name in expected.state_dict()})
    expected.embed_tokens.weight.data = expected.embed_tokens.weight.data.bfloat16().float()
    ids, attended = torch.arange(20)[None] * 7 % 300, torch.ones(1, 20, dtype=torch.bool)
    torch.testing.assert_close(network(ids, attended), expected(ids, attended), rtol=1e-4, atol=1e-4)


def test_a_folder_with_a_gguf_tower_needs_no_configuration(tmp_path: Path) -> None:
    made = replace(models.recipe(Kind.KLEIN), text=QWEN, transformer=replace(models.TRANSFORMER, context_in_dim=96))
    folder = models.write_folder(tmp_path / "model", made)
    shutil.rmtree(folder / "text_encoder")
    (folder / "text_encoder").mkdir()
    write_tower(folder / "text_encoder" / "qwen.gguf", QWEN, "qwen3")
    files = read_folder(folder)
    assert files.variant.text.tower == QWEN.tower
    single = folder / "mine.safetensors"
    shutil.copyfile(folder / "transformer" / "diffusion_pytorch_model.safetensors", single)
    shutil.copyfile(folder / "transformer" / "config.json", single.with_suffix(".json"))
    named = read_file(single, None, None, folder / "text_encoder" / "qwen.gguf")
    assert named.variant.text.tower == QWEN.tower
    assert named.parts.tokenizer == folder / "tokenizer"


def other_tensor(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_tensor("token_embd.weight", np.ones((4, 4), np.float32))
    writer.add_tensor("blk.0.ssm_in.weight", np.ones((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


BROKEN: dict[str, Callable[[Path], object]] = {
    "architecture 'gemma'": lambda path: write_tower(path, QWEN, "gemma"),
    "the tensor blk.0.ssm_in.weight": other_tensor,
    "rope type 'yarn'": lambda path: write_tower(path, QWEN, "qwen3", **{"rope.scaling.type": "yarn"}),
}


@pytest.mark.parametrize("message", BROKEN)
def test_what_is_no_text_encoder_is_refused(message: str, tmp_path: Path) -> None:
    folder = models.write_folder(tmp_path / "model", models.recipe(Kind.KLEIN))
    shutil.rmtree(folder / "text_encoder")
    (folder / "text_encoder").mkdir()
    BROKEN[message](folder / "text_encoder" / "a.gguf")
    with pytest.raises(InvalidCheckpoint, match=message):
        read_folder(folder)
