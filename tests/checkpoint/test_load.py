import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from licht.checkpoint.assets import built_in
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.checkpoint.reader import open_source, read_json
from licht.core.errors import InvalidCheckpoint
from licht.model.linear import StackedLinear
from tests.support import models, raw

CPU = Placement(torch.device("cpu"), None)
FLOAT32 = Placement(torch.device("cpu"), torch.float32)
BFLOAT16 = Placement(torch.device("cpu"), torch.bfloat16)
VAE_CONFIG = {"norm_num_groups": 4}


def load(folder: Path, part: str, placement: Placement = CPU) -> Any:  # noqa: ANN401 - one of three networks
    """A part of a model folder."""
    source = open_source(folder / part)
    if part == "transformer":
        return load_transformer(source, placement, read_json(folder / part / "config.json"))
    if part == "vae":
        return load_autoencoder(source, placement, VAE_CONFIG)
    return load_tower(source, placement, models.TEXT)


def refused(folder: Path, part: str, *parts: str) -> None:
    with pytest.raises(InvalidCheckpoint) as caught:
        load(folder, part)
    for wanted in parts:
        assert wanted in caught.value.message


def swap(folder: Path, part: str, changes: dict[str, Tensor | None]) -> None:
    raw.rewrite(folder / part, changes)


PARTS = pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
ONE_OF = {
    "transformer": "transformer_blocks.0.attn.to_k.weight",
    "vae": "encoder.mid_block.attentions.0.to_q.weight",
    "text_encoder": "model.layers.1.self_attn.k_proj.weight",
}
OFFICIAL_ONE_OF = {
    "transformer": "double_blocks.0.img_attn.qkv.weight",
    "vae": "encoder.mid.attn_1.q.weight",
    "text_encoder": "model.layers.1.self_attn.k_proj.weight",
}


@PARTS
def test_loading_gives_the_saved_weights(tiny: Path, official: Path, part: str) -> None:
    made = {"transformer": models.transformer(), "vae": models.autoencoder(), "text_encoder": models.tower()}
    wanted = made[part]
    for folder in (tiny, official):
        loaded = load(folder, part, FLOAT32)
        for name, tensor in wanted.state_dict().items():
            owner, _, leaf = name.rpartition(".")
            assert torch.equal(getattr(loaded.get_submodule(owner), leaf), tensor), name
        assert not loaded.training
        assert not any(weight.requires_grad for weight in loaded.parameters())


@PARTS
def test_both_layouts_compute_the_same(tiny: Path, official: Path, part: str) -> None:
    one, other = load(tiny, part), load(official, part)
    given: tuple[Tensor, ...]
    if part == "transformer":
        given = (torch.ones(1, 4, 16), torch.zeros(4, 4), torch.ones(1, 3, 48), torch.zeros(3, 4), torch.ones(1))
    elif part == "vae":
        given = (torch.ones(1, 3, 16, 16),)
    else:
        given = (torch.arange(6)[None], torch.ones(1, 6, dtype=torch.bool))
    outputs = [network.encode(*given) if part == "vae" else network(*given) for network in (one, other)]
    torch.testing.assert_close(*outputs)
    assert outputs[0].abs().max() > 1e-3


@PARTS
def test_a_missing_tensor_is_named(copy: Path, official_copy: Path, part: str) -> None:
    swap(copy, part, {ONE_OF[part]: None})
    refused(copy, part, str(copy / part), "lacks", ONE_OF[part].removeprefix("model."), "copy it again")
    swap(official_copy, part, {OFFICIAL_ONE_OF[part]: None})
    refused(official_copy, part, "lacks", OFFICIAL_ONE_OF[part].removeprefix("model."), "expected exactly the")


@PARTS
def test_many_missing_tensors_are_counted(official_copy: Path, part: str) -> None:
    prefix = {"transformer": "double_blocks.1.", "vae": "encoder.mid.", "text_encoder": "model.layers.2."}[part]
    names = [name for name in raw.tensors(official_copy / part) if name.startswith(prefix)][1:]
    swap(official_copy, part, dict.fromkeys(names))
    refused(official_copy, part, "lacks", f"and {len(names) - 3} more")


@PARTS
def test_an_extra_tensor_is_named(copy: Path, official_copy: Path, part: str) -> None:
    name = "model.surprise.weight" if part == "text_encoder" else "surprise.weight"
    for folder in (copy, official_copy):
        swap(folder, part, {name: torch.zeros(2)})
        refused(folder, part, "has the unknown tensors surprise.weight", "expected exactly the")


@PARTS
def test_a_wrong_shape_is_named_with_the_right_one(copy: Path, part: str) -> None:
    right = raw.tensors(copy / part)[ONE_OF[part]]
    swap(copy, part, {ONE_OF[part]: right.T.reshape(-1, 2).contiguous()})
    refused(copy, part, f"tensor {ONE_OF[part]}", f"expected {tuple(right.shape)}", "damaged or of another model")


@PARTS
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_values_that_are_not_finite_are_counted(copy: Path, part: str, value: float) -> None:
    broken = raw.tensors(copy / part)[ONE_OF[part]]
    broken.view(-1)[3:5] = value
    swap(copy, part, {ONE_OF[part]: broken})
    refused(copy, part, f"tensor {ONE_OF[part]} in {copy / part}", "has 2 values that are not finite", "copy it again")


def test_opposite_infinities_do_not_cancel(copy: Path) -> None:
    broken = raw.tensors(copy / "vae")["bn.running_mean"]
    broken[0], broken[1] = float("inf"), float("-inf")
    swap(copy, "vae", {"bn.running_mean": broken})
    refused(copy, "vae", "tensor bn.running_mean", "has 2 values that are not finite")


def test_large_but_finite_values_are_accepted(copy: Path) -> None:
    large = torch.full_like(raw.tensors(copy / "vae")["bn.running_mean"], 3e38)
    swap(copy, "vae", {"bn.running_mean": large})
    assert torch.equal(load(copy, "vae").bn.running_mean, large)


@PARTS
@pytest.mark.parametrize("dtype", [torch.int64, torch.int8, torch.uint8, torch.bool, torch.float8_e4m3fn])
def test_weights_that_are_no_plain_floats_are_refused(copy: Path, part: str, dtype: torch.dtype) -> None:
    swap(copy, part, {ONE_OF[part]: raw.tensors(copy / part)[ONE_OF[part]].to(dtype)})
    refused(
        copy, part, f"tensor {ONE_OF[part]}", f"is stored as {dtype}", "use weights in float32, bfloat16 or float16"
    )


@pytest.mark.parametrize(
    ("part", "name", "again"),
    [
        ("transformer", "img_in.weight", "model.diffusion_model.img_in.weight"),
        ("transformer", "single_blocks.0.norm.key_norm.scale", "single_blocks.0.norm.key_norm.weight"),
        ("text_encoder", "model.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight"),
    ],
)
def test_one_tensor_under_two_names_is_refused(official_copy: Path, part: str, name: str, again: str) -> None:
    swap(official_copy, part, {again: raw.tensors(official_copy / part)[name]})
    refused(official_copy, part, "twice", name, again, "keep one of them")


def test_wrapped_official_names_load(official_copy: Path) -> None:
    path = official_copy / "transformer"
    tensors = raw.tensors(path)
    wrapped = {
        f"model.diffusion_model.{name.replace('_norm.scale', '_norm.weight')}": tensor
        for name, tensor in tensors.items()
    }
    swap(official_copy, "transformer", {**dict.fromkeys(tensors), **wrapped})
    assert torch.equal(load(official_copy, "transformer").img_in.weight, tensors["img_in.weight"])


def test_whatever_a_text_model_has_above_is_neither_needed_nor_read(copy: Path) -> None:
    above = ("model.layers.3.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight", "model.vision_tower.x.weight")
    swap(copy, "text_encoder", {name: torch.full((2,), float("nan")) for name in above})
    assert len(load(copy, "text_encoder").layers) == 3


def test_the_count_of_batches_is_optional(copy: Path, official_copy: Path) -> None:
    assert "bn.num_batches_tracked" not in raw.tensors(copy / "vae")
    swap(copy, "vae", {"bn.num_batches_tracked": torch.tensor(7)})
    swap(official_copy, "vae", {"bn.num_batches_tracked": torch.tensor(7)})
    for folder in (copy, official_copy):
        assert load(folder, "vae").bn.num_batches_tracked.device.type == "cpu"


def test_tensors_that_need_no_change_stay_mapped(tiny: Path) -> None:
    source = open_source(tiny / "transformer")
    network = load_transformer(source, FLOAT32, {})
    for ours, name in (
        ("img_in.weight", "x_embedder.weight"),
        ("double_blocks.0.img_attn.qkv.blocks.1", "transformer_blocks.0.attn.to_k.weight"),
        ("single_blocks.0.linear1.weight", "single_transformer_blocks.0.attn.to_qkv_mlp_proj.weight"),
    ):
        assert network.get_parameter(ours).data_ptr() == source.tensor(name).data_ptr()
    assert isinstance(network.get_submodule("double_blocks.0.txt_attn.qkv"), StackedLinear)


@PARTS
def test_the_dtype_is_the_one_asked_for(tiny: Path, official: Path, part: str) -> None:
    for folder in (tiny, official):
        exact, half = load(folder, part), load(folder, part, BFLOAT16)
        assert {weight.dtype for weight in exact.parameters()} == {torch.float32}
        assert {weight.dtype for weight in half.parameters()} == {torch.bfloat16}
        assert not any(isinstance(module, StackedLinear) for module in half.modules())


def test_nothing_is_replaced_if_names_or_shapes_are_to_blame(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    swap(copy, "transformer", {"proj_out.weight": torch.zeros(1, 1)})
    monkeypatch.setattr(
        "licht.checkpoint.reader.TensorSource.tensor", lambda *args: pytest.fail("a tensor was read before the check")
    )
    refused(copy, "transformer", "tensor proj_out.weight", "has shape (1, 1)")


def test_negative_variances_are_refused(tmp_path: Path) -> None:
    source = built_in()["nano"] / "vae"
    folder = tmp_path / "vae"
    shutil.copytree(source, folder)
    file = folder / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    tensors["bn.running_var"] = tensors["bn.running_var"].clone()
    tensors["bn.running_var"][3] = -1.0
    save_file(tensors, file)
    with pytest.raises(InvalidCheckpoint, match=r"bn\.running_var in .* has negative values"):
        load_autoencoder(open_source(folder), Placement(torch.device("cpu"), None), read_json(folder / "config.json"))
