"""Sizes of the official networks, on the meta device: nothing is allocated."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_flux2 import AutoencoderKLFlux2
from diffusers.models.transformers.transformer_flux2 import Flux2Transformer2DModel
from torch import Tensor, nn

from licht.checkpoint.load import load_tower
from licht.checkpoint.names import autoencoder_layout, transformer_layout
from licht.checkpoint.reader import TensorSource
from licht.evaluation.golden import autoencoder_settings, transformer_settings
from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import AUTOENCODER, SMALL_DECODER, VARIANTS, AutoencoderConfig
from tests.golden.sections import FLOAT32, Models

PARAMETERS = {"dev": 32_223_281_152, "klein-9b": 9_078_581_248, "klein-4b": 3_875_544_576}
TENSORS = {"dev": 331, "klein-9b": 233, "klein-4b": 169}
SAME_SIZE = {"klein-9b-kv": "klein-9b", "klein-base-9b": "klein-9b", "klein-base-4b": "klein-4b"}


def _count(module: nn.Module, without: str = "") -> int:
    return sum(p.numel() for name, p in module.named_parameters() if not (without and name.startswith(without)))


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}


@pytest.mark.parametrize("name", VARIANTS)
def test_transformers_have_the_published_size(name: str) -> None:
    sizes = VARIANTS[name].transformer
    expected = PARAMETERS[SAME_SIZE.get(name, name)]
    with torch.device("meta"):
        assert _count(Flux2Transformer(sizes)) == expected
    assert sizes.parameters == expected


@pytest.mark.parametrize("name", PARAMETERS)
def test_transformers_have_the_names_and_shapes_of_the_reference(name: str) -> None:
    sizes = VARIANTS[name].transformer
    with torch.device("meta"):
        ours = dict(Flux2Transformer(sizes).state_dict())
        settings = {key: value for key, value in transformer_settings(sizes).items() if key != "_class_name"}
        theirs: nn.Module = Flux2Transformer2DModel(**settings)
    converted = {piece.foreign: piece.to_foreign(ours[piece.official]) for piece in transformer_layout(sizes)}
    assert len(converted) == TENSORS[name]
    assert _shapes(converted) == _shapes(theirs.state_dict())


@pytest.mark.parametrize(
    ("sizes", "encoder", "decoder"),
    [(AUTOENCODER, 34_425_856, 49_619_203), (SMALL_DECODER, 34_425_856, 27_946_179)],
    ids=["official", "small decoder"],
)
def test_autoencoders_have_the_published_size(sizes: AutoencoderConfig, encoder: int, decoder: int) -> None:
    """The published size of a decoder leaves out `post_quant_conv`, the encoder's is with `quant_conv`."""
    outside = 32 * 32 + 32
    with torch.device("meta"):
        ours = Autoencoder(sizes)
        theirs: Any = AutoencoderKLFlux2(**autoencoder_settings(sizes))
    assert _count(ours.decoder, without="post_quant_conv") == decoder == _count(theirs.decoder)
    assert _count(ours.encoder) == encoder
    assert _count(ours) == encoder + decoder + outside == _count(theirs)
    assert sizes is not AUTOENCODER or _count(ours) == 84_046_115
    state = dict(ours.state_dict())
    converted = {piece.foreign: piece.to_foreign(state[piece.official]) for piece in autoencoder_layout(sizes)}
    reference = _shapes(theirs.state_dict())
    del reference["bn.num_batches_tracked"]
    assert _shapes(converted) == reference


@pytest.mark.parametrize(("name", "used", "whole"), [("klein-4b", 27, 36), ("klein-9b", 27, 36), ("dev", 30, 40)])
def test_text_towers_end_at_the_last_layer_that_is_read(name: str, used: int, whole: int) -> None:
    text = VARIANTS[name].text
    with torch.device("meta"):
        tower = TextTower(text)
    assert (len(tower.layers), text.tower.num_layers) == (used, whole)
    assert not [name for name, _ in tower.named_parameters() if not name.startswith(("embed_tokens.", "layers."))]


@pytest.mark.parametrize(("kind", "used", "whole"), [("klein", 27, 36), ("dev", 30, 40)])
def test_upper_layers_are_not_even_read(
    kind: str, used: int, whole: int, built: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = built.files(kind)
    read: list[str] = []
    tensor = TensorSource.tensor

    def listening(self: TensorSource, name: str) -> Tensor:
        read.append(name)
        return tensor(self, name)

    monkeypatch.setattr(TensorSource, "tensor", listening)
    tower = load_tower(files.tower, FLOAT32, files.variant.text)

    assert len(tower.layers) == used
    assert any(f"layers.{whole - 1}." in name for name in files.tower)  # the file does have them
    layers = {int(name.split("layers.")[1].split(".")[0]) for name in read if "layers." in name}
    assert layers == set(range(used))
    assert not [name for name in read if "lm_head" in name or "vision" in name or "projector" in name]
    # each is asked for once more when its pages are handed back
    assert len(set(read)) == len(tower.state_dict())
