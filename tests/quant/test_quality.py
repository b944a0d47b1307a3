"""How much of the trained built-in model's velocity survives each format, in decibels of signal to noise."""

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from licht.checkpoint.catalog import find_model
from licht.checkpoint.load import Placement, load_tower, load_transformer
from licht.engine.prompts import PromptTokenizer
from licht.engine.stages import encode_prompt
from licht.model.positions import image_ids, text_ids
from licht.model.transformer import Flux2Transformer
from licht.quant.int8 import Int8Linear
from licht.quant.swap import quantise, worth_quantising

pytestmark = pytest.mark.slow
CPU = Placement(torch.device("cpu"), torch.float32)
# Lowest velocity SNR allowed; measured 37.1, 47.0, 41.4, 25.7, 25.4
FLOORS = {"fp8": 35.5, "int8": 45.5, "int8 with activations": 39.5, "q4": 24.5, "nvfp4": 24.0}
# the same with outlier channels; measured 30.9, 27.4, 11.9, 17.2
FLOORS_WITH_OUTLIERS = {"fp8": 29.0, "int8": 26.0, "q4": 10.5, "nvfp4": 16.0}


@pytest.fixture(scope="module")
def text() -> Tensor:
    files = find_model("nano")
    tokens = PromptTokenizer(files.parts.tokenizer, files.variant.text, files.template)(
        ["a large shiny red sphere to the left of a small matte blue cube on a gray floor"]
    )
    return encode_prompt(load_tower(files.tower, CPU, files.variant.text), tokens)


def transformer(form: str | None = None) -> Flux2Transformer:
    files = find_model("nano")
    return load_transformer(files.transformer, replace(CPU, quant=form), files.transformer_config)


def swapped(network: Flux2Transformer, form: str) -> Flux2Transformer:
    """The same network with its blocks quantised."""
    for name, layer in list(network.named_modules()):
        weight = getattr(layer, "weight", None)
        if isinstance(weight, Tensor) and worth_quantising(name, tuple(weight.shape)):
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, quantise(weight, form, torch.float32))
    return network


def with_outliers(network: Flux2Transformer) -> Flux2Transformer:
    """Every 64th input channel of every block's matrices is ten times as large, as in large language models."""
    for name, layer in network.named_modules():
        if isinstance(layer, torch.nn.Linear) and worth_quantising(name, tuple(layer.weight.shape)):
            weight = layer.weight.clone()
            weight[:, ::64] *= 10
            layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    return network


@torch.inference_mode()
def velocities(network: Flux2Transformer, text: Tensor) -> Tensor:
    """At two times, on an 8 x 8 grid (a picture of 128 x 128)."""
    generator = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 64, network.config.in_channels, generator=generator)
    times = (0.9, 0.4)
    out = [network(noise, image_ids((8, 8)), text, text_ids(text.shape[1]), torch.full((1,), t)) for t in times]
    return torch.stack(out)


def snr(exact: Tensor, other: Tensor) -> float:
    return 10 * math.log10(float(exact.square().sum() / (exact - other).square().sum()))


@pytest.fixture(scope="module")
def exact(text: Tensor) -> Tensor:
    return velocities(transformer(), text)


@pytest.mark.parametrize("form", FLOORS)
def test_the_trained_model_keeps_its_velocity(
    form: str, text: Tensor, exact: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    if form == "int8 with activations":
        monkeypatch.setattr(Int8Linear, "fast", True)
    found = snr(exact, velocities(transformer(form.partition(" ")[0]), text))
    print(f"{form}: {found:.1f} dB")
    assert found > FLOORS[form]


@pytest.mark.parametrize("form", FLOORS_WITH_OUTLIERS)
def test_outlier_channels_do_not_break_a_format(form: str, text: Tensor) -> None:
    network = with_outliers(transformer())
    expected = velocities(network, text)
    found = snr(expected, velocities(swapped(network, form), text))
    print(f"{form} with outliers: {found:.1f} dB")
    assert found > FLOORS_WITH_OUTLIERS[form]
