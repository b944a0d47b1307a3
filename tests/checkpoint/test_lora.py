import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from licht.checkpoint.lora import read_lora, save_lora
from licht.checkpoint.lora_names import places, split_key
from licht.core.errors import InvalidCheckpoint
from licht.model.lora import Adapter, LowRank
from tests.support import loras, models

NAME = "double_blocks.0.img_attn.proj"
PEFT = (".lora_A.weight", ".lora_B.weight")


def one(
    pattern: str = "diffusion_model.{name}", parts: tuple[str, str] = PEFT, alpha: float | None = None
) -> dict[str, Tensor]:
    return loras.low_rank([NAME], pattern, parts, alpha)


def matrix(path: Path, name: str = NAME) -> Tensor:
    (branch,) = read_lora(path, models.TRANSFORMER).adapter.branches[name]
    return branch.delta.matrix()


def test_every_suffix_means_the_same(tmp_path: Path) -> None:
    expected = matrix(loras.write(tmp_path / "a", one()))
    down, up = loras.factors((32, 32), 0)
    torch.testing.assert_close(expected, up @ down)
    for parts in (
        (".lora_A.default.weight", ".lora_B.default.weight"),
        (".lora_A.my-style", ".lora_B.my-style"),
        (".lora_down.weight", ".lora_up.weight"),
        ("_lora.down.weight", "_lora.up.weight"),
        (".lora.down.weight", ".lora.up.weight"),
        (".lora_linear_layer.down.weight", ".lora_linear_layer.up.weight"),
    ):
        assert torch.equal(matrix(loras.write(tmp_path / "b", one(parts=parts))), expected), parts


@pytest.mark.parametrize(
    "pattern",
    [
        "{name}",
        "transformer.{name}",
        "model.diffusion_model.{name}",
        "base_model.model.transformer.{name}",
        "base_model.model.diffusion_model.{name}",
        "lora_unet_{flat}",
        "lycoris_{flat}",
        "diffusion_model.transformer_blocks.0.attn.to_out.0",
        "diffusion_model.sformer_blocks.0.attn.to_out.0",
        "lora_transformer_transformer_blocks_0_attn_to_out_0",
    ],
)
def test_every_prefix_means_the_same(pattern: str, tmp_path: Path) -> None:
    expected = matrix(loras.write(tmp_path / "a", one()))
    assert torch.equal(matrix(loras.write(tmp_path / "b", one(pattern))), expected)


def test_every_layer_is_known_in_both_layouts_and_both_spellings() -> None:
    known = places(models.TRANSFORMER)
    assert {known[name].official for name in loras.OFFICIAL} == set(loras.OFFICIAL)
    assert {known[name.replace(".", "_")].official for name in loras.OFFICIAL} == set(loras.OFFICIAL)
    assert {place.official for name, place in known.items() if "transformer_blocks" in name} == set(loras.BLOCKS)
    assert known["transformer_blocks_0_attn_to_out_0"].official == "double_blocks.0.img_attn.proj"
    assert known["single_transformer_blocks_0_attn_to_out"].official == "single_blocks.0.linear2"
    assert known["transformer_blocks_1_ff_context_linear_in"].official == "double_blocks.1.txt_mlp.0"
    assert (known["transformer_blocks.1.attn.to_v"].part, known["transformer_blocks.1.attn.to_v"].parts) == (2, 3)


def test_alpha_and_rank_scale_the_product(tmp_path: Path) -> None:
    plain = matrix(loras.write(tmp_path / "a", one()))
    torch.testing.assert_close(matrix(loras.write(tmp_path / "b", one(alpha=1.0))), plain / loras.RANK)
    said = {"transformer.r": loras.RANK, "transformer.lora_alpha": 12}
    path = loras.write(tmp_path / "c", one(), {"lora_adapter_metadata": json.dumps(said)})
    torch.testing.assert_close(matrix(path), plain * 3)
    path = loras.write(tmp_path / "d", one(alpha=1.0), {"lora_adapter_metadata": json.dumps(said)})
    assert torch.allclose(matrix(path), plain / loras.RANK), "an alpha beside the layer comes first"
    whole = {**one(), f"diffusion_model.{NAME}.alpha": torch.tensor(2)}
    torch.testing.assert_close(matrix(loras.write(tmp_path / "e", whole)), plain / 2)


@pytest.mark.parametrize("kind", ["lora", "lokr", "lokr with an odd factor"])
def test_the_last_layer_is_read_in_the_order_of_its_layout(kind: str, tmp_path: Path) -> None:
    official, foreign = "final_layer.adaLN_modulation.1", "norm_out.linear"
    generator = torch.Generator().manual_seed(0)
    if kind == "lora":
        parts = dict(zip(("lora_A.weight", "lora_B.weight"), loras.factors((64, 32), 0), strict=True))
    else:
        rows = 4 if kind == "lokr" else 1
        parts = {
            "lokr_w1": torch.randn(rows, 4, generator=generator),
            "lokr_w2": torch.randn(64 // rows, 8, generator=generator),
        }
    ours = matrix(loras.write(tmp_path / "a", {f"{official}.{k}": v for k, v in parts.items()}), official)
    theirs = matrix(loras.write(tmp_path / "b", {f"{foreign}.{k}": v for k, v in parts.items()}), official)
    torch.testing.assert_close(theirs, torch.cat([ours[32:], ours[:32]]))


def test_split_projections_land_in_their_rows(tmp_path: Path) -> None:
    names = [f"transformer_blocks.0.attn.add_{part}_proj" for part in "qkv"]
    tensors: dict[str, Tensor] = {}
    expected = []
    for seed, name in enumerate(names):
        down, up = loras.factors((32, 32), seed, rank=2 + seed)
        tensors |= {f"transformer.{name}.lora_A.weight": down, f"transformer.{name}.lora_B.weight": up}
        expected.append(up @ down)
    read = read_lora(loras.write(tmp_path / "a", tensors), models.TRANSFORMER)
    branches = read.adapter.branches["double_blocks.0.txt_attn.qkv"]
    assert sorted((b.start, b.rows) for b in branches) == [(0, 32), (32, 32), (64, 32)]
    for branch in branches:
        torch.testing.assert_close(branch.delta.matrix(), expected[branch.start // 32])
    save_lora(tmp_path / "b.safetensors", read.adapter)
    torch.testing.assert_close(
        matrix(tmp_path / "b.safetensors", "double_blocks.0.txt_attn.qkv"), torch.cat(expected), rtol=1e-6, atol=1e-6
    )


def test_the_report_counts_keys(tmp_path: Path) -> None:
    tensors = loras.low_rank(loras.BLOCKS, "diffusion_model.{name}", PEFT)
    read = read_lora(loras.write(tmp_path / "style.safetensors", tensors), models.TRANSFORMER)
    assert read.report == f"LoRA style.safetensors: {len(tensors)} of {len(tensors)} keys applied"
    assert len(tensors) == 2 * len(loras.BLOCKS)


def test_a_partial_fit_is_an_error_unless_allowed(tmp_path: Path) -> None:
    tensors = one() | {"diffusion_model.double_blocks.7.img_attn.proj" + part: torch.ones(1, 1) for part in PEFT}
    path = loras.write(tmp_path / "x.safetensors", tensors)
    with pytest.raises(InvalidCheckpoint, match=r"2 of 4 keys applied; unknown: .*double_blocks\.7"):
        read_lora(path, models.TRANSFORMER)
    read = read_lora(path, models.TRANSFORMER, allow_partial=True)
    assert (read.applied, read.total, len(read.unknown)) == (2, 4, 2)
    assert "2 of 4" in read.report


@pytest.mark.parametrize("allow", [False, True])
@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("transformer.transformer_blocks.0.attn.to_k_proj.lora_A.weight", "fits no layer of this model: 0 of 1"),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight", "fits no layer"),
        ("double_blocks.0.img_attn.proj.weight", "is no LoRA"),
        ("double_blocks.0.img_attn.proj.hada_w1_a", "fits no layer"),
    ],
)
def test_nothing_that_fits_is_always_an_error(key: str, message: str, allow: bool, tmp_path: Path) -> None:
    path = loras.write(tmp_path / "x", {key: torch.ones(4, 4)})
    with pytest.raises(InvalidCheckpoint, match=message):
        read_lora(path, models.TRANSFORMER, allow)


def test_zero_products_are_said(tmp_path: Path) -> None:
    tensors = {key: tensor * ("lora_A" in key) for key, tensor in one().items()}
    read = read_lora(loras.write(tmp_path / "x", tensors), models.TRANSFORMER)
    assert read.changes_nothing
    assert "changes nothing" in read.report


BROKEN = {
    "expected a down and an up": {f"{NAME}.lora_A.weight": torch.ones(4, 32)},
    "ranks 4 and 5": {f"{NAME}.lora_A.weight": torch.ones(4, 32), f"{NAME}.lora_B.weight": torch.ones(32, 5)},
    "made for another variant": {
        f"{NAME}.lora_A.weight": torch.ones(4, 48),
        f"{NAME}.lora_B.weight": torch.ones(48, 4),
    },
    "expected a matrix": {f"{NAME}.lora_A.weight": torch.ones(4), f"{NAME}.lora_B.weight": torch.ones(32, 4)},
    "not finite": {f"{NAME}.lora_A.weight": torch.full((4, 32), torch.nan), f"{NAME}.lora_B.weight": torch.ones(32, 4)},
    "is stored as torch.int8": {
        f"{NAME}.lora_A.weight": torch.ones(4, 32, dtype=torch.int8),
        f"{NAME}.lora_B.weight": torch.ones(32, 4),
    },
    "twice, as": {**one(), **one("transformer.{name}")},
    "under two names": {**one(), **one("transformer_blocks.0.attn.to_out.0")},
    "expected one number": {**one(), f"diffusion_model.{NAME}.alpha": torch.ones(2)},
    "DoRA magnitude": {**one(), f"diffusion_model.{NAME}.dora_scale": torch.ones(31, 1)},
    "do not fit together": {
        f"{NAME}.lokr_w1": torch.ones(4, 4),
        f"{NAME}.lokr_w2_a": torch.ones(8, 2),
        f"{NAME}.lokr_w2_b": torch.ones(3, 8),
    },
    "is not loaded": {"../../etc/passwd.lora_A.weight": torch.ones(4, 32)},
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_files_are_refused(message: str, tmp_path: Path) -> None:
    path = loras.write(tmp_path / "x", BROKEN[message])
    with pytest.raises(InvalidCheckpoint, match=message):
        read_lora(path, models.TRANSFORMER)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "no JSON"),
        ("[]", "no JSON object"),
        ('{"lora_alpha": "8"}', "expected a number"),
        ('{"alpha_pattern": {"to_q": "8"}}', "maps no names"),
        ('{"alpha_pattern": {"(a+)+$": 8}}', "no name of a layer"),
    ],
)
def test_broken_metadata_is_refused(said: str, message: str, tmp_path: Path) -> None:
    path = loras.write(tmp_path / "x", one(), {"lora_adapter_metadata": said})
    with pytest.raises(InvalidCheckpoint, match=message):
        read_lora(path, models.TRANSFORMER)


def test_a_missing_or_foreign_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match="there is no LoRA"):
        read_lora(tmp_path / "none.safetensors", models.TRANSFORMER)
    (tmp_path / "text").write_text("hello", encoding="utf-8")
    with pytest.raises(InvalidCheckpoint, match="not a complete safetensors file"):
        read_lora(tmp_path / "text", models.TRANSFORMER)


def test_what_is_saved_reads_the_same(tmp_path: Path) -> None:
    tensors = loras.low_rank(loras.OFFICIAL, "diffusion_model.{name}", PEFT, alpha=3.0)
    read = read_lora(loras.write(tmp_path / "a", tensors), models.TRANSFORMER)
    save_lora(tmp_path / "b.safetensors", read.adapter, {"trigger": "a clearing"})
    again = read_lora(tmp_path / "b.safetensors", models.TRANSFORMER)
    assert again.applied == again.total == 2 * len(loras.OFFICIAL)
    for name in loras.OFFICIAL:
        torch.testing.assert_close(
            again.adapter.branches[name][0].delta.matrix(), read.adapter.branches[name][0].delta.matrix()
        )
    kronecker = Adapter({NAME: read_lora(_lokr(tmp_path), models.TRANSFORMER).adapter.branches[NAME]})
    with pytest.raises(ValueError, match="no plain LoRA"):
        save_lora(tmp_path / "c", kronecker)
    assert not list(tmp_path.glob(".*"))


def _lokr(folder: Path) -> Path:
    parts = loras.kronecker((32, 32), 0, decomposed=False)
    return loras.write(folder / "lokr", {f"{NAME}.{part}": tensor for part, tensor in parts.items()})


def test_alpha_counts_in_lokr_only_beside_a_product(tmp_path: Path) -> None:
    for decomposed in (False, True):
        parts = loras.kronecker((32, 32), 0, decomposed)
        left = parts["lokr_w1"]
        right = parts["lokr_w2_a"] @ parts["lokr_w2_b"] / 2 if decomposed else parts["lokr_w2"]
        path = loras.write(tmp_path / "x", {f"{NAME}.{part}": tensor for part, tensor in parts.items()})
        torch.testing.assert_close(matrix(path), torch.kron(left, right))


def test_half_precision_files_are_read_in_full_precision(tmp_path: Path) -> None:
    path = loras.write(tmp_path / "x", {key: tensor.bfloat16() for key, tensor in one(alpha=0.3).items()})
    (branch,) = read_lora(path, models.TRANSFORMER).adapter.branches[NAME]
    assert isinstance(branch.delta, LowRank)
    assert branch.delta.up_OR.dtype is torch.float32


@given(st.text(max_size=80))
def test_no_key_breaks_the_reader(key: str) -> None:
    for ending in (".lora_A.weight", ".alpha", ".lokr_w1"):
        found = split_key(key + ending)
        assert found is not None
        assert key.endswith(found[0])
