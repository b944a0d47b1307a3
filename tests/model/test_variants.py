import pytest
import torch

from licht.model.transformer import Flux2Transformer
from licht.model.variants import VARIANTS, Kind, TransformerConfig, Variant

EVERY = list(VARIANTS.values())


@pytest.mark.parametrize("variant", EVERY, ids=lambda variant: variant.name)
def test_the_parts_of_a_variant_fit(variant: Variant) -> None:
    sizes, text = variant.transformer, variant.text
    assert sizes.head_dim == sum(sizes.axes_dim) == 128
    assert text.context_dim == sizes.context_in_dim
    assert text.layers_used < text.tower.num_layers
    assert text.length == 512
    assert variant.autoencoder.token_channels == sizes.in_channels == 128
    assert sizes.guidance_embed == (variant.kind is Kind.DEV)


def test_names_files_and_repositories_are_unique() -> None:
    assert list(VARIANTS) == ["dev", "klein-4b", "klein-9b", "klein-9b-kv", "klein-base-4b", "klein-base-9b"]
    assert {variant.transformer_file for variant in EVERY} == {
        "flux2-dev.safetensors",
        "flux-2-klein-4b.safetensors",
        "flux-2-klein-9b.safetensors",
        "flux-2-klein-9b-kv.safetensors",
        "flux-2-klein-base-4b.safetensors",
        "flux-2-klein-base-9b.safetensors",
    }
    assert {variant.repository for variant in EVERY} == {
        "black-forest-labs/FLUX.2-dev",
        "black-forest-labs/FLUX.2-klein-4B",
        "black-forest-labs/FLUX.2-klein-9B",
        "black-forest-labs/FLUX.2-klein-9b-kv",
        "black-forest-labs/FLUX.2-klein-base-4B",
        "black-forest-labs/FLUX.2-klein-base-9B",
    }


@pytest.mark.parametrize(
    ("name", "kind", "steps", "guidance"),
    [
        ("dev", Kind.DEV, 50, 4.0),
        ("klein-4b", Kind.KLEIN, 4, None),
        ("klein-9b", Kind.KLEIN, 4, None),
        ("klein-9b-kv", Kind.KV, 4, None),
        ("klein-base-4b", Kind.BASE, 50, 4.0),
        ("klein-base-9b", Kind.BASE, 50, 4.0),
    ],
)
def test_variants_run_as_they_are_meant_to(name: str, kind: Kind, steps: int, guidance: float | None) -> None:
    variant = VARIANTS[name]
    assert (variant.kind, variant.default_steps, variant.default_guidance) == (kind, steps, guidance)
    assert variant.takes_guidance == (guidance is not None)
    assert variant.max_references == 10


@pytest.mark.parametrize("guidance", [False, True])
def test_the_closed_form_counts_every_weight(guidance: bool) -> None:
    sizes = TransformerConfig(48, 3, 2, 4, 30, guidance, in_channels=20, mlp_ratio=2.5, axes_dim=(4, 4, 4, 4))
    with torch.device("meta"):
        network = Flux2Transformer(sizes)
    assert sum(weight.numel() for weight in network.parameters()) == sizes.parameters
