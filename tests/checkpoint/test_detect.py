import dataclasses
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from licht.checkpoint.detect import (
    Layout,
    autoencoder_config,
    autoencoder_layout_of,
    tower_config,
    transformer_config,
    transformer_layout_of,
)
from licht.checkpoint.reader import TensorSource, open_source
from licht.checkpoint.save import Target, save_network
from licht.core.errors import InvalidCheckpoint
from licht.model.variants import AutoencoderConfig, TransformerConfig
from tests.support import models, raw

EVERY_LAYOUT = pytest.mark.parametrize("layout", list(Layout))
FULL_CONFIG = {
    "attention_head_dim": 16,
    "axes_dims_rope": [4, 4, 4, 4],
    "eps": 1e-6,
    "guidance_embeds": False,
    "in_channels": 16,
    "joint_attention_dim": 48,
    "num_attention_heads": 2,
    "num_layers": 2,
    "num_single_layers": 2,
    "patch_size": 1,
    "rope_theta": 2000,
}


def detected(source: TensorSource, config: dict[str, Any] | None = None) -> TransformerConfig:
    return transformer_config(source, transformer_layout_of(source), config or {})


@EVERY_LAYOUT
@pytest.mark.parametrize("sizes", [models.TRANSFORMER, models.DEV_TRANSFORMER], ids=["klein", "dev"])
def test_shapes_tell_a_transformer(tmp_path: Path, layout: Layout, sizes: TransformerConfig) -> None:
    save_network(models.transformer(sizes), Target(tmp_path, "model"), layout)
    source = open_source(tmp_path)
    assert transformer_layout_of(source) is layout
    assert transformer_config(source, layout, {}) == sizes


def test_unusual_axes_and_theta_come_from_the_config(tiny: Path) -> None:
    config = {"axes_dims_rope": [2, 6, 6, 2], "rope_theta": 500}
    wanted = dataclasses.replace(models.TRANSFORMER, axes_dim=(2, 6, 6, 2), theta=500)
    assert detected(open_source(tiny / "transformer"), config) == wanted


def test_a_whole_config_that_agrees_is_accepted(tiny: Path) -> None:
    assert detected(open_source(tiny / "transformer"), FULL_CONFIG) == models.TRANSFORMER


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_layers": 3}, "says num_layers 3, its tensors make a network with 2; tensors are missing"),
        ({"num_single_layers": 1}, "says num_single_layers 1, its tensors make a network with 2"),
        ({"num_attention_heads": 24}, "says num_attention_heads 24, its tensors make a network with 2"),
        ({"guidance_embeds": True}, "says guidance_embeds True, its tensors make a network with False"),
        ({"joint_attention_dim": "48"}, "says joint_attention_dim '48'"),
        ({"eps": 1e-5}, "says eps 1e-05, its tensors make a network with 1e-06"),
        ({"axes_dims_rope": 4}, "has axes_dims_rope 4; expected four positive numbers"),
        ({"axes_dims_rope": ["4", 4, 4, 4]}, "expected four positive numbers"),
        ({"axes_dims_rope": [16, 0, 0, 0]}, "expected four positive numbers"),
        ({"axes_dims_rope": [8, 8]}, "expected four positive numbers"),
        ({"axes_dims_rope": [8, 8, 8, 8]}, "width 32, head width 16, rotary axes (8, 8, 8, 8)"),
        ({"axes_dims_rope": [3, 5, 4, 4]}, "rotary axes (3, 5, 4, 4)"),
        ({"rope_theta": "2000"}, "lacks a usable 'rope_theta' (it is '2000'); expected a whole number from 1"),
        ({"rope_theta": 0}, "lacks a usable 'rope_theta' (it is 0)"),
        ({"rope_theta": None}, "lacks a usable 'rope_theta' (it is None)"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused(tiny: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=re.escape(message)):
        detected(open_source(tiny / "transformer"), {**FULL_CONFIG, **changed})


def test_what_is_no_transformer_is_refused(tiny: Path) -> None:
    with pytest.raises(
        InvalidCheckpoint, match=r"is not a FLUX\.2 transformer: it has no double_stream_modulation_img"
    ):
        transformer_layout_of(open_source(tiny / "vae"))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("img_in.weight", None, "lacks the tensor img_in.weight; the file is incomplete"),
        ("img_in.weight", torch.zeros(4), "tensor img_in.weight in .* has shape \\(4,\\); expected 2 axes"),
        ("img_in.weight", torch.zeros(32, 0), "tensor img_in.weight in .* is empty, with shape \\(32, 0\\)"),
        ("img_in.weight", torch.zeros(33, 16), "width 33, head width 16"),
        ("single_blocks.0.linear2.weight", torch.zeros(32, 32), "the 32 columns of single_blocks.0.linear2.weight"),
        ("single_blocks.0.norm.query_norm.scale", None, "lacks the tensor single_blocks.0.norm.query_norm.scale"),
        ("single_blocks.3.linear1.weight", torch.zeros(2), "lacks all tensors of single_blocks.2"),
        ("double_blocks.9999.img_attn.proj.weight", torch.zeros(2), "lacks all tensors of double_blocks.2"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(
    official_copy: Path, name: str, tensor: torch.Tensor | None, message: str
) -> None:
    raw.rewrite(official_copy / "transformer", {name: tensor})
    with pytest.raises(InvalidCheckpoint, match=message):
        detected(open_source(official_copy / "transformer"))


def test_a_file_without_blocks_is_refused(official_copy: Path) -> None:
    path = official_copy / "transformer"
    raw.rewrite(path, {name: None for name in raw.tensors(path) if name.startswith("double_blocks")})
    with pytest.raises(InvalidCheckpoint, match=r"lacks all tensors of double_blocks\.0; the file is incomplete"):
        detected(open_source(path))


@pytest.mark.timeout(200)
def test_thousands_of_blocks_are_refused_at_once(official_copy: Path) -> None:
    path = official_copy / "transformer"
    raw.rewrite(path, {f"double_blocks.{n}.x": torch.zeros(1) for n in range(2, 9000)})
    with pytest.raises(InvalidCheckpoint, match="has 9000 double_blocks; at most 512 make a network"):
        detected(open_source(path))


@EVERY_LAYOUT
@pytest.mark.parametrize("channels", [(4, 8, 8, 12), (8, 4, 12, 8)])
def test_shapes_tell_an_autoencoder(tmp_path: Path, layout: Layout, channels: tuple[int, ...]) -> None:
    sizes = dataclasses.replace(models.AUTOENCODER, channels=channels, num_res_blocks=2)
    save_network(models.autoencoder(sizes), Target(tmp_path, "model"), layout)
    source = open_source(tmp_path)
    assert autoencoder_layout_of(source) is layout
    assert autoencoder_config(source, layout, {"norm_num_groups": 4, "batch_norm_eps": 1e-4}) == sizes


def test_the_official_autoencoder_needs_no_config(tmp_path: Path) -> None:
    sizes = AutoencoderConfig((32, 32, 32, 32), (32, 32, 32, 32), num_res_blocks=1, z_channels=2)
    save_network(models.autoencoder(sizes), Target(tmp_path, "ae"), Layout.OFFICIAL)
    assert autoencoder_config(open_source(tmp_path), Layout.OFFICIAL, {}) == sizes


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "32 norm groups do not divide the widths (4, 8, 8, 12) and (4, 4, 8, 12); put the config.json"),
        ({"norm_num_groups": 0}, "lacks a usable 'norm_num_groups' (it is 0)"),
        ({"norm_num_groups": "4"}, "lacks a usable 'norm_num_groups' (it is '4')"),
        ({"norm_num_groups": True}, "lacks a usable 'norm_num_groups' (it is True)"),
        ({"norm_num_groups": 4, "batch_norm_eps": -1}, "lacks a usable 'batch_norm_eps' (it is -1)"),
        ({"norm_num_groups": 4, "batch_norm_eps": math.nan}, "lacks a usable 'batch_norm_eps' (it is nan)"),
        ({"norm_num_groups": 4, "batch_norm_eps": math.inf}, "lacks a usable 'batch_norm_eps' (it is inf)"),
        ({"norm_num_groups": 4, "batch_norm_eps": []}, "lacks a usable 'batch_norm_eps' (it is [])"),
    ],
)
def test_an_unusable_autoencoder_config_is_refused(tiny: Path, config: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=re.escape(message)):
        autoencoder_config(open_source(tiny / "vae"), Layout.DIFFUSERS, config)


def test_what_is_no_autoencoder_is_refused(tiny: Path, official_copy: Path) -> None:
    message = "is not a FLUX.2 autoencoder: it lacks bn.running_mean or quant_conv; a FLUX.1 autoencoder does not fit"
    with pytest.raises(InvalidCheckpoint, match=message):
        autoencoder_layout_of(open_source(tiny / "transformer"))
    raw.rewrite(official_copy / "vae", {"bn.running_mean": None})
    with pytest.raises(InvalidCheckpoint, match=message):
        autoencoder_layout_of(open_source(official_copy / "vae"))


def test_an_autoencoder_of_three_levels_is_refused(tmp_path: Path) -> None:
    sizes = dataclasses.replace(models.AUTOENCODER, channels=(4, 8, 8), decoder_channels=(4, 8, 8))
    save_network(models.autoencoder(sizes), Target(tmp_path, "model"), Layout.OFFICIAL)
    with pytest.raises(InvalidCheckpoint, match=r"has 3 levels below encoder\.down; a FLUX\.2 autoencoder has 4"):
        autoencoder_config(open_source(tmp_path), Layout.OFFICIAL, {"norm_num_groups": 4})


@pytest.mark.parametrize("tower", [models.QWEN, models.MISTRAL])
def test_a_config_tells_a_text_model(tiny: Path, tower: Any) -> None:  # noqa: ANN401
    source = open_source(tiny / "text_encoder")
    config = models.tower_json(tower)
    assert tower_config(config, source) == tower
    older = {**config, "rope_parameters": None, "rope_theta": tower.rope_theta, "rope_scaling": None}
    if "text_config" not in config:
        assert tower_config(older, source) == tower
        assert tower_config({**config, "head_dim": None}, source).head_dim == 4


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model_type": "llama"}, "text model type 'llama' is unknown; expected qwen3 or mistral3"),
        ({"model_type": None}, "text model type 'None' is unknown"),
        ({"text_config": [1]}, "has a text_config that is no object"),
        ({"rope_parameters": [1]}, "has rotary settings that are no object"),
        (
            {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1.0}},
            "has rope type 'yarn'; only 'default' is known",
        ),
        ({"rope_parameters": {"rope_type": "default"}}, "lacks a usable 'rope_theta' (it is None)"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "has rope type 'linear'"),
        ({"hidden_act": "gelu"}, "has activation 'gelu'; only 'silu' is known"),
        ({"attention_bias": True}, "has attention bias True"),
        ({"use_sliding_window": True, "sliding_window": 512}, "has sliding window True"),
        ({"hidden_size": None}, "lacks a usable 'hidden_size' (it is None)"),
        ({"hidden_size": "16"}, "lacks a usable 'hidden_size' (it is '16')"),
        ({"num_attention_heads": 0}, "lacks a usable 'num_attention_heads' (it is 0)"),
        ({"num_hidden_layers": 10**9}, "lacks a usable 'num_hidden_layers' (it is 1000000000)"),
        ({"num_key_value_heads": 3}, "has 4 heads of width 8 for 3 key heads, which do not fit together"),
        ({"head_dim": 7}, "has 4 heads of width 7"),
        ({"head_dim": None, "num_attention_heads": 32}, "has 32 heads of width 0"),
        ({"rms_norm_eps": 0}, "lacks a usable 'rms_norm_eps' (it is 0); expected a positive number"),
        ({"rms_norm_eps": 10**400}, "lacks a usable 'rms_norm_eps' (it is 1000"),
        ({"vocab_size": 2.5}, "lacks a usable 'vocab_size' (it is 2.5)"),
    ],
)
def test_an_unusable_text_config_is_refused(tiny: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidCheckpoint, match=re.escape(message)):
        tower_config({**models.tower_json(models.QWEN), **changed}, open_source(tiny / "text_encoder"))


def test_without_a_config_only_the_official_widths_are_known(tiny: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"has no config\.json and is none of the known text models; add its"):
        tower_config({}, open_source(tiny / "text_encoder"))


def test_an_official_text_model_is_known_by_its_width(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    header = {"model.embed_tokens.weight": raw.entry([1, 2560])}
    path.write_bytes(raw.safetensors_bytes(header, bytes(4 * 2560)))
    assert tower_config({}, open_source(path)).num_layers == 36
