from collections import defaultdict

import pytest
import torch
from torch import nn

from licht.checkpoint.names import (
    Change,
    Piece,
    autoencoder_layout,
    normalise_official,
    official_layout,
    swap_halves,
    tower_name,
    transformer_layout,
)
from licht.model.transformer import Flux2Transformer
from licht.model.variants import AUTOENCODER, SMALL_DECODER, VARIANTS, AutoencoderConfig
from tests.support import models

NETWORKS = [
    pytest.param(models.transformer(), transformer_layout(models.TRANSFORMER), id="transformer"),
    pytest.param(models.transformer(models.DEV_TRANSFORMER), transformer_layout(models.DEV_TRANSFORMER), id="dev"),
    pytest.param(models.autoencoder(), autoencoder_layout(models.AUTOENCODER), id="autoencoder"),
]


@pytest.mark.parametrize(("module", "layout"), NETWORKS)
def test_every_row_of_every_tensor_has_exactly_one_place(module: nn.Module, layout: list[Piece]) -> None:
    assert len({piece.foreign for piece in layout}) == len(layout)
    parts = defaultdict(list)
    for piece in layout:
        parts[piece.official].append(piece)
    assert set(parts) == set(module.state_dict()) - {"bn.num_batches_tracked"}
    for pieces in parts.values():
        assert [piece.part for piece in pieces] == list(range(pieces[0].parts))


@pytest.mark.parametrize(("module", "layout"), NETWORKS)
def test_there_and_back_again(module: nn.Module, layout: list[Piece]) -> None:
    tensors = module.state_dict()
    rebuilt = defaultdict(list)
    for piece in layout:
        foreign = piece.to_foreign(tensors[piece.official])
        assert foreign.shape == piece.foreign_shape(tuple(tensors[piece.official].shape))
        rebuilt[piece.official].append(piece.to_official(foreign))
    for name, rows in rebuilt.items():
        assert torch.equal(torch.cat(rows), tensors[name]), name


@pytest.mark.parametrize(("name", "count"), [("dev", 331), ("klein-9b", 233), ("klein-4b", 169)])
def test_as_many_tensors_as_the_official_folders(name: str, count: int) -> None:
    assert len(transformer_layout(VARIANTS[name].transformer)) == count


def test_shift_and_scale_of_the_last_layer_change_places() -> None:
    (piece,) = [piece for piece in transformer_layout(models.TRANSFORMER) if piece.change is Change.SWAP_HALVES]
    assert (piece.official, piece.foreign) == ("final_layer.adaLN_modulation.1.weight", "norm_out.linear.weight")
    shift, scale = torch.zeros(2, 3), torch.ones(2, 3)
    assert torch.equal(piece.to_foreign(torch.cat([shift, scale])), torch.cat([scale, shift]))
    assert torch.equal(swap_halves(swap_halves(torch.arange(6))), torch.arange(6))


def test_fused_rows_are_q_then_k_then_v() -> None:
    layout = {piece.foreign: piece for piece in transformer_layout(models.TRANSFORMER)}
    fused = torch.arange(9.0).reshape(9, 1)
    for number, letter in enumerate("qkv"):
        piece = layout[f"transformer_blocks.1.attn.to_{letter}.weight"]
        assert piece.official == "double_blocks.1.img_attn.qkv.weight"
        assert piece.to_foreign(fused).flatten().tolist() == [3 * number, 3 * number + 1, 3 * number + 2]
    assert layout["transformer_blocks.1.attn.add_k_proj.weight"].official == "double_blocks.1.txt_attn.qkv.weight"


@pytest.mark.parametrize("config", [AUTOENCODER, SMALL_DECODER])
def test_levels_of_the_decoder_are_counted_from_the_other_end(config: AutoencoderConfig) -> None:
    layout = {piece.foreign: piece.official for piece in autoencoder_layout(config)}
    assert layout["decoder.up_blocks.0.resnets.2.conv1.weight"] == "decoder.up.3.block.2.conv1.weight"
    assert layout["decoder.up_blocks.3.resnets.0.conv1.weight"] == "decoder.up.0.block.0.conv1.weight"
    assert layout["decoder.up_blocks.2.upsamplers.0.conv.bias"] == "decoder.up.1.upsample.conv.bias"
    assert "decoder.up_blocks.3.upsamplers.0.conv.bias" not in layout
    assert layout["encoder.down_blocks.0.downsamplers.0.conv.bias"] == "encoder.down.0.downsample.conv.bias"
    assert layout["quant_conv.weight"] == "encoder.quant_conv.weight"
    assert layout["post_quant_conv.weight"] == "decoder.post_quant_conv.weight"


def test_a_convolution_of_one_pixel_is_a_linear_map_elsewhere() -> None:
    piece = next(p for p in autoencoder_layout(models.AUTOENCODER) if p.foreign.endswith("attentions.0.to_q.weight"))
    weight = torch.arange(4.0).reshape(2, 2, 1, 1)
    assert piece.to_foreign(weight).tolist() == [[0, 1], [2, 3]]
    assert torch.equal(piece.to_official(piece.to_foreign(weight)), weight)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("img_in.weight", "img_in.weight"),
        ("model.diffusion_model.img_in.weight", "img_in.weight"),
        ("diffusion_model.double_blocks.3.img_mlp.0.weight", "double_blocks.3.img_mlp.0.weight"),
        ("single_blocks.0.norm.key_norm.weight", "single_blocks.0.norm.key_norm.scale"),
        ("double_blocks.0.txt_attn.norm.query_norm.scale", "double_blocks.0.txt_attn.norm.query_norm.scale"),
    ],
)
def test_wrapped_names_are_unwrapped(name: str, ours: str) -> None:
    assert normalise_official(name) == ours


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("model.embed_tokens.weight", "embed_tokens.weight"),
        ("model.layers.26.mlp.up_proj.weight", "layers.26.mlp.up_proj.weight"),
        ("model.layers.27.mlp.up_proj.weight", None),
        ("model.layers.35.mlp.up_proj.weight", None),
        ("model.norm.weight", None),
        ("lm_head.weight", None),
        ("model.language_model.layers.0.input_layernorm.weight", "layers.0.input_layernorm.weight"),
        ("language_model.model.layers.0.input_layernorm.weight", "layers.0.input_layernorm.weight"),
        ("language_model.model.norm.weight", None),
        ("language_model.lm_head.weight", None),
        ("model.vision_tower.patch_conv.weight", None),
        ("vision_tower.patch_conv.weight", None),
        ("multi_modal_projector.linear_1.weight", None),
        ("model.multi_modal_projector.linear_1.weight", None),
        ("layers.0.self_attn.q_proj.bias", "layers.0.self_attn.q_proj.bias"),
    ],
)
def test_of_a_language_model_only_the_lower_layers_are_kept(name: str, ours: str | None) -> None:
    assert tower_name(name, 27) == ours


def test_official_names_are_the_modules_own() -> None:
    with torch.device("meta"):
        network = Flux2Transformer(VARIANTS["klein-4b"].transformer)
    names = {piece.foreign for piece in official_layout(network.state_dict())}
    assert {
        "img_in.weight",
        "txt_in.weight",
        "time_in.in_layer.weight",
        "double_stream_modulation_img.lin.weight",
        "single_stream_modulation.lin.weight",
        "double_blocks.4.img_attn.qkv.weight",
        "double_blocks.4.txt_attn.norm.query_norm.scale",
        "double_blocks.4.txt_mlp.2.weight",
        "single_blocks.19.linear1.weight",
        "single_blocks.19.norm.key_norm.scale",
        "final_layer.adaLN_modulation.1.weight",
        "final_layer.linear.weight",
    } <= names
    assert "guidance_in.in_layer.weight" not in names
