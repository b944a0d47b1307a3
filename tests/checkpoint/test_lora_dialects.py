"""Each dialect against what diffusers and peft compute from the same file: max difference / largest value."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from licht.checkpoint.detect import Layout
from licht.checkpoint.lora import read_lora
from licht.checkpoint.save import named_tensors
from licht.model.lora import Adapters
from licht.model.positions import image_ids, text_ids
from licht.model.transformer import Flux2Transformer
from tests.support import loras, models

if TYPE_CHECKING:
    from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel

pytestmark = pytest.mark.slow  # importing the reference takes most of the time
diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

TOLERANCE = 1e-5  # measured: at most 8.9e-7 in every dialect, float32
TOUCHED = 0.02  # every file below changes the velocity by more than this share of its largest value


@pytest.fixture(scope="module")
def ours() -> Flux2Transformer:
    return models.transformer()


@pytest.fixture
def reference(ours: Flux2Transformer) -> "Flux2Transformer2DModel":
    sizes = models.TRANSFORMER
    module = diffusers.Flux2Transformer2DModel(
        in_channels=sizes.in_channels,
        num_layers=sizes.depth,
        num_single_layers=sizes.depth_single_blocks,
        attention_head_dim=sizes.head_dim,
        num_attention_heads=sizes.num_heads,
        joint_attention_dim=sizes.context_in_dim,
        axes_dims_rope=sizes.axes_dim,
        rope_theta=sizes.theta,
        guidance_embeds=False,
    )
    module.load_state_dict(dict(named_tensors(ours, Layout.DIFFUSERS)))
    made: Flux2Transformer2DModel = module.eval()
    return made


def inputs() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(2, 12, models.TRANSFORMER.in_channels, generator=generator)
    text = torch.randn(2, 5, models.TRANSFORMER.context_in_dim, generator=generator)
    return x, image_ids((3, 4)), text, text_ids(5), torch.tensor([0.7, 0.3])


@torch.no_grad()
def run_reference(module: torch.nn.Module) -> Tensor:
    x, x_ids, text, txt_ids, t = inputs()
    out: Tensor = module(
        hidden_states=x, encoder_hidden_states=text, timestep=t, img_ids=x_ids, txt_ids=txt_ids, return_dict=False
    )[0]
    return out


@torch.no_grad()
def run_ours(module: Flux2Transformer, path: Path | None, strength: float = 1.0, applied: bool = True) -> Tensor:
    if path is None:
        out: Tensor = module(*inputs())
        return out
    read = read_lora(path, module.config)
    assert (read.applied == read.total) is applied
    adapters = Adapters(module)
    adapters.add("one", read.adapter, torch.float32, torch.device("cpu"))
    with adapters.using([{"one": strength}]):
        changed: Tensor = module(*inputs())
    adapters.remove("one")
    return changed


def into_reference(module: torch.nn.Module, path: Path) -> None:
    mixin = diffusers.loaders.Flux2LoraLoaderMixin
    tensors, metadata = mixin.lora_state_dict(str(path), return_lora_metadata=True)
    mixin.load_lora_into_transformer(tensors, transformer=module, adapter_name="one", metadata=metadata)


def check(ours: Flux2Transformer, expected: Tensor, changed: Tensor) -> None:
    size = float(expected.abs().max())
    error, moved = (
        float((a - b).abs().max()) / size for a, b in ((changed, expected), (expected, run_ours(ours, None)))
    )
    print(f"difference {error:.1e}, the LoRA itself {moved:.1e}")
    assert error < TOLERANCE
    assert moved > TOUCHED


def test_without_a_lora_both_agree(ours: Flux2Transformer, reference: "Flux2Transformer2DModel") -> None:
    expected = run_reference(reference)
    assert float((run_ours(ours, None) - expected).abs().max() / expected.abs().max()) < TOLERANCE


LOW_RANK = {
    "official names, A and B": ("diffusion_model.{name}", (".lora_A.weight", ".lora_B.weight"), None),
    "official names, down and up": ("diffusion_model.{name}", (".lora_down.weight", ".lora_up.weight"), None),
    "peft base model": ("base_model.model.{name}", (".lora_A.weight", ".lora_B.weight"), None),
    "kohya": ("lora_unet_{flat}", (".lora_down.weight", ".lora_up.weight"), 2.0),
    "kohya without alpha": ("lora_unet_{flat}", (".lora_down.weight", ".lora_up.weight"), None),
}


@pytest.mark.parametrize("dialect", LOW_RANK)
def test_low_rank_dialects(
    dialect: str, ours: Flux2Transformer, reference: "Flux2Transformer2DModel", tmp_path: Path
) -> None:
    pattern, parts, alpha = LOW_RANK[dialect]
    path = loras.write(tmp_path / "lora.safetensors", loras.low_rank(loras.BLOCKS, pattern, parts, alpha))
    if dialect == "official names, down and up":  # the reference takes this file for kohya's and fails on it
        expected = run_ours(
            ours, loras.write(tmp_path / "same", loras.low_rank(loras.BLOCKS, *LOW_RANK["official names, A and B"]))
        )
    else:
        into_reference(reference, path)
        expected = run_reference(reference)
    check(ours, expected, run_ours(ours, path))


def trained(reference: "Flux2Transformer2DModel", config: dict[str, Any]) -> "Flux2Transformer2DModel":
    """The reference with an adapter of peft's on every kind of layer, its last one included, with random weights."""
    targets = (
        r".*\.(to_q|to_k|to_v|to_out\.0|add_q_proj|add_k_proj|add_v_proj|to_add_out|linear_in|linear_out|to_qkv_mlp_proj)"
        r"|single.*\.to_out|norm_out\.linear|proj_out|x_embedder"
    )
    made = peft.LoraConfig(r=4, target_modules=targets, **config)
    reference.add_adapter(made)
    generator = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in reference.named_parameters():
            if "lora_A" in name or "lora_B" in name:
                parameter.normal_(0, 0.3 if "lora_B" in name else 0.2, generator=generator)
            elif "magnitude" in name:
                parameter.mul_(1.3)
    return reference


@pytest.mark.parametrize(
    "config",
    [
        {"lora_alpha": 4},
        {"lora_alpha": 10},
        {"lora_alpha": 10, "use_rslora": True},
        {
            "lora_alpha": 3,
            "alpha_pattern": {"to_k": 9, "transformer_blocks.1.attn.to_q": 16},
            "rank_pattern": {"to_v": 7},
        },
        {"lora_alpha": 6, "use_dora": True},
    ],
    ids=["plain", "alpha", "rank-stabilised", "patterns", "dora"],
)
def test_files_that_diffusers_writes(
    config: dict[str, Any], ours: Flux2Transformer, reference: "Flux2Transformer2DModel", tmp_path: Path
) -> None:
    trained(reference, config)
    metadata = reference.peft_config["default"].to_dict()
    diffusers.loaders.Flux2LoraLoaderMixin.save_lora_weights(
        str(tmp_path),
        transformer_lora_layers=peft.utils.get_peft_model_state_dict(reference),
        transformer_lora_adapter_metadata=metadata,
    )
    check(ours, run_reference(reference), run_ours(ours, tmp_path / "pytorch_lora_weights.safetensors"))


def test_a_folder_that_peft_writes(
    ours: Flux2Transformer, reference: "Flux2Transformer2DModel", tmp_path: Path
) -> None:
    wrapped = peft.get_peft_model(reference, peft.LoraConfig(r=4, lora_alpha=12, target_modules=["to_q", "linear_in"]))
    with torch.no_grad():
        for name, parameter in wrapped.named_parameters():
            if "lora_B" in name:
                parameter.normal_(0, 0.3, generator=torch.Generator().manual_seed(1))
    wrapped.save_pretrained(str(tmp_path))
    check(ours, run_reference(wrapped), run_ours(ours, tmp_path))


FOREIGN = {
    "transformer_blocks.0.attn.to_q": (32, 32),
    "transformer_blocks.1.attn.to_out.0": (32, 32),
    "transformer_blocks.0.attn.add_v_proj": (32, 32),
    "transformer_blocks.1.attn.to_add_out": (32, 32),
    "transformer_blocks.0.ff.linear_in": (192, 32),
    "transformer_blocks.0.ff_context.linear_out": (32, 96),
    "single_transformer_blocks.0.attn.to_qkv_mlp_proj": (288, 32),
    "single_transformer_blocks.1.attn.to_out": (32, 128),
}


def kronecker(pattern: str, decomposed: bool) -> dict[str, Tensor]:
    tensors = {}
    for seed, (name, shape) in enumerate(FOREIGN.items()):
        for part, tensor in loras.kronecker(shape, seed, decomposed).items():
            tensors[f"{pattern.format(name=name, flat=name.replace('.', '_'))}.{part}"] = tensor
    return tensors


@pytest.mark.parametrize("decomposed", [False, True], ids=["full", "decomposed"])
@pytest.mark.parametrize("pattern", ["lycoris_{flat}", "{name}", "transformer.{name}"])
def test_lokr(
    pattern: str, decomposed: bool, ours: Flux2Transformer, reference: "Flux2Transformer2DModel", tmp_path: Path
) -> None:
    path = loras.write(tmp_path / "lokr.safetensors", kronecker(pattern, decomposed))
    readable = loras.write(tmp_path / "for-reference.safetensors", kronecker("lycoris_{flat}", decomposed))
    into_reference(reference, readable)
    check(ours, run_reference(reference), run_ours(ours, path))


def test_lokr_of_official_names_stays_fused(
    ours: Flux2Transformer, reference: "Flux2Transformer2DModel", tmp_path: Path
) -> None:
    tensors = {}
    for seed, name in enumerate(loras.BLOCKS):
        for part, tensor in loras.kronecker(loras.OFFICIAL[name], seed, decomposed=True).items():
            tensors[f"diffusion_model.{name}.{part}"] = tensor
    path = loras.write(tmp_path / "lokr.safetensors", tensors)
    reference.fuse_qkv_projections()
    into_reference(reference, path)
    check(ours, run_reference(reference), run_ours(ours, path))
