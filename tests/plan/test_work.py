"""What the plan counts against what tensors really take and what the networks really multiply."""

import dataclasses

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from licht.core.sizes import Size
from licht.model import banded
from licht.model.autoencoder import Autoencoder
from licht.model.positions import image_ids, text_ids
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import (
    VARIANTS,
    AutoencoderConfig,
    TextConfig,
    Tower,
    TowerConfig,
    TransformerConfig,
)
from licht.plan import sizes, work
from tests.support.memory import peak_bytes

SIZES = TransformerConfig(256, 4, 1, 1, 192, guidance_embed=False, in_channels=64, axes_dim=(16,) * 4)
TEXT = TextConfig(TowerConfig(Tower.QWEN3, 300, 64, 192, 4, 4, 2, 16, 1e4, 1e-6), (1, 2, 3), 64)
VAE = AutoencoderConfig((32, 64, 128, 128), (32, 64, 128, 128), 2, 16, 8)
VARIANT = dataclasses.replace(
    VARIANTS["klein-4b"], transformer=SIZES, text=TEXT, autoencoder=VAE, name="small", default_steps=1
)
REQUEST = work.Request(Size(256, 256))


def tokens(length: int, width: int, dtype: torch.dtype = torch.bfloat16) -> torch.Tensor:
    return torch.randn(1, length, width, generator=torch.Generator().manual_seed(0)).to(dtype)


def run_transformer() -> None:
    network = Flux2Transformer(SIZES).to(torch.bfloat16)
    text = tokens(64, 192)

    def run() -> None:
        network(tokens(256, 64), image_ids((16, 16)), text, text_ids(64), torch.ones(1))

    with torch.inference_mode():
        run()
    planned = work.denoise_work(VARIANT, REQUEST, 1, "bfloat16")
    found = peak_bytes(run)
    with FlopCounterMode(display=False) as flops, torch.inference_mode():
        run()
    print(f"memory {found / planned.memory_bytes:.2f}, operations {flops.get_total_flops() / planned.operations:.2f}")
    assert 0.75 < found / planned.memory_bytes <= 1.0
    assert 0.95 < flops.get_total_flops() / planned.operations < 1.1


def test_the_transformer_takes_what_is_planned() -> None:
    run_transformer()  # measured: memory 0.93, operations 1.00


def test_the_text_tower_takes_what_is_planned() -> None:
    tower = TextTower(TEXT).bfloat16()
    ids, attended = torch.zeros(1, 64, dtype=torch.long), torch.ones(1, 64, dtype=torch.bool)
    planned = work.encode_prompt_work(TEXT, 1, "bfloat16")
    found = peak_bytes(lambda: tower(ids, attended))
    with FlopCounterMode(display=False) as flops, torch.inference_mode():
        tower(ids, attended)
    print(f"memory {found / planned.memory_bytes:.2f}, operations {flops.get_total_flops() / planned.operations:.2f}")
    assert 0.6 < found / planned.memory_bytes <= 1.0  # measured: memory 0.8, operations 1.00
    assert 0.9 < flops.get_total_flops() / planned.operations < 1.1


@pytest.mark.parametrize("in_bands", [False, True])
@pytest.mark.parametrize("what", ["decode", "encode"])
def test_the_autoencoder_takes_what_is_planned(what: str, in_bands: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = Autoencoder(VAE).eval()
    assert work.BAND_NUMBERS == banded.BAND_ELEMENTS
    monkeypatch.setattr(banded, "BAND_ELEMENTS", 64 * 256 * 4)
    monkeypatch.setattr(work, "BAND_NUMBERS", 64 * 256 * 4)
    monkeypatch.setattr(banded, "LEAST_ROWS", 4)
    side = 256
    x = torch.randn(1, 64, side // 16, side // 16) if what == "decode" else torch.randn(1, 3, side, side)
    run = getattr(banded, f"{what}_banded") if in_bands else lambda ae, x: getattr(ae, what)(x)
    request = work.Request(Size(side, side), images=1, reference_size=Size(side, side))
    counted = work.decode_work if what == "decode" else work.encode_references_work
    planned = counted(VARIANT, request, "float32", in_bands)
    found = peak_bytes(lambda: run(autoencoder, x))
    print(f"{what}: memory {found / planned.memory_bytes:.2f}")
    assert 0.5 < found / planned.memory_bytes <= 1.0
    if not in_bands:
        with FlopCounterMode(display=False) as flops, torch.inference_mode():
            run(autoencoder, x)
        print(f"operations {flops.get_total_flops() / planned.operations:.2f}")
        assert 0.9 < flops.get_total_flops() / planned.operations < 1.1


@pytest.mark.parametrize("name", VARIANTS)
def test_weights_are_counted_exactly(name: str) -> None:
    variant = VARIANTS[name]
    with torch.device("meta"):
        networks = Flux2Transformer(variant.transformer), TextTower(variant.text), Autoencoder(variant.autoencoder)
    counts = [
        sum(tensor.numel() for key, tensor in network.state_dict().items() if "num_batches" not in key)
        for network in networks
    ]
    assert sizes.transformer_bytes(variant.transformer, "bfloat16", "none") == 2 * counts[0]
    assert sizes.tower_bytes(variant.text, "bfloat16", "none") == 2 * counts[1]
    assert sizes.autoencoder_weights(variant.autoencoder) == counts[2]
    small = sizes.transformer_bytes(variant.transformer, "bfloat16", "q4")
    assert 0.28 < small / (2 * counts[0]) < 0.36
    assert sizes.streamed_transformer_bytes(variant.transformer, "bfloat16", "none") < counts[0]
    assert sizes.streamed_tower_bytes(variant.text, "bfloat16", "none") < counts[1]


def test_cached_references_take_keys_and_values_in_every_block() -> None:
    cached, plain = VARIANTS["klein-9b-kv"], VARIANTS["klein-9b"]
    request = work.Request(Size(1024, 1024), images=2)
    more = work.denoise_work(cached, request, 1, "bfloat16").memory_bytes
    more -= work.denoise_work(plain, request, 1, "bfloat16").memory_bytes
    assert more == 2 * (2 * 4096 * (8 + 24) * 2 * 4096)


def test_references_and_guidance_count() -> None:
    klein, base = VARIANTS["klein-4b"], VARIANTS["klein-base-4b"]
    plain = work.Request(Size(1024, 1024))
    assert work.denoise_tokens(klein, plain) == 512 + 4096
    assert work.denoise_tokens(klein, dataclasses.replace(plain, images=3)) == 512 + 4 * 4096
    small = dataclasses.replace(plain, images=2, reference_size=Size(256, 256))
    assert work.denoise_tokens(klein, small) == 512 + 4096 + 2 * 256
    assert work.passes(base, None) == 2
    assert work.passes(base, 1.0) == 1
    assert work.passes(klein, None) == 1
    assert work.encode_references_work(klein, plain, "bfloat16", banded=False).memory_bytes == 0
