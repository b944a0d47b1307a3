"""The comparisons would see it: every classic mistake changes the result by far more than is allowed.

Shapes: B batch, L tokens, C channels, D width.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import load_autoencoder, load_tower, load_transformer
from licht.core.sizes import Size
from licht.engine.pictures import to_tensor
from licht.engine.prompts import PromptTokenizer
from licht.evaluation.compare import PROMPTS, SEED
from licht.evaluation.measured import relative_error, sample_picture
from licht.model import text as text_model
from licht.model import transformer as transformer_model
from licht.model.autoencoder import Autoencoder
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Kind
from tests.golden.inside import Inputs, inputs_for
from tests.golden.sections import FLOAT32, KINDS, Models

SEEN = 1e-3
"""A hundred times the tolerance of a component."""

Mistake = Callable[[Flux2Transformer, Inputs], Inputs]


def _swap_rows(weight: Tensor, parts: int, first: int, second: int) -> None:
    blocks = list(weight.detach().clone().chunk(parts))
    blocks[first], blocks[second] = blocks[second], blocks[first]
    with torch.no_grad():
        weight.copy_(torch.cat(blocks))


def _in_weights(name: str, parts: int, first: int, second: int) -> Mistake:
    def mistake(transformer: Flux2Transformer, given: Inputs) -> Inputs:
        _swap_rows(transformer.get_parameter(name), parts, first, second)
        return given

    return mistake


def _in_inputs(change: Callable[[Inputs], Inputs]) -> Mistake:
    return lambda _, given: change(given)


def _swap_columns(transformer: Flux2Transformer, given: Inputs) -> Inputs:
    weight = transformer.get_parameter("single_blocks.0.linear2.weight")
    with torch.no_grad():
        weight.copy_(weight.roll(transformer.config.mlp_hidden_size, dims=1))
    return given


def _swap_time(transformer: Flux2Transformer, given: Inputs) -> Inputs:
    weight = transformer.get_parameter("time_in.in_layer.weight")
    with torch.no_grad():
        weight.copy_(weight.roll(weight.shape[1] // 2, dims=1))
    return given


MISTAKES: Mapping[str, Mistake] = {
    "queries as keys in a double block": _in_weights("double_blocks.0.img_attn.qkv.weight", 3, 0, 1),
    "keys as values of the text": _in_weights("double_blocks.0.txt_attn.qkv.weight", 3, 1, 2),
    "queries as keys in a single block": _in_weights("single_blocks.0.linear1.weight", 9, 0, 1),
    "gate as value of a double block": _in_weights("double_blocks.0.img_mlp.0.weight", 2, 0, 1),
    "shift as scale of the image": _in_weights("double_stream_modulation_img.lin.weight", 6, 0, 1),
    "shift as gate of the text's MLP": _in_weights("double_stream_modulation_txt.lin.weight", 6, 3, 5),
    "scale as gate of single blocks": _in_weights("single_stream_modulation.lin.weight", 3, 1, 2),
    "shift as scale at the end": _in_weights("final_layer.adaLN_modulation.1.weight", 2, 0, 1),
    "attention as MLP in a single block": _swap_columns,
    "sines before cosines of the time": _swap_time,
    "rows as columns": _in_inputs(lambda given: replace(given, x_ids=given.x_ids[:, [0, 2, 1, 3]])),
    "references at t = 1, 2, 3": _in_inputs(
        lambda given: replace(given, reference_ids=given.reference_ids // torch.tensor([10, 1, 1, 1]))
    ),
    "all references at t = 10": _in_inputs(
        lambda given: replace(given, reference_ids=given.reference_ids.clamp(max=torch.tensor([10, 99, 99, 99])))
    ),
    "text without positions": _in_inputs(lambda given: replace(given, text_ids=given.text_ids * 0)),
    "the last text token missing": _in_inputs(
        lambda given: replace(given, text_BTD=given.text_BTD[:, :-1], text_ids=given.text_ids[:-1])
    ),
    "another time": _in_inputs(lambda given: replace(given, timesteps_B=given.timesteps_B * 0.99)),
}


@pytest.fixture(scope="module", params=KINDS)
def files(request: pytest.FixtureRequest, built: Models) -> ModelFiles:
    return built.files(request.param)


@contextmanager
def _weights_kept(module: nn.Module) -> Iterator[None]:
    """Undo what a mistake does to the weights."""
    kept = {name: weight.clone() for name, weight in module.named_parameters()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, weight in module.named_parameters():
                weight.copy_(kept[name])


@pytest.fixture(scope="module")
def transformer(files: ModelFiles) -> Flux2Transformer:
    loaded = load_transformer(files.transformer, FLOAT32, files.transformer_config)
    # the file's separate matrices become the official fused ones, so that mistakes can be made in them
    official = Flux2Transformer(loaded.config)
    for name in list(official.state_dict()):
        owner, _, leaf = name.rpartition(".")
        with torch.no_grad():
            official.get_parameter(name).copy_(getattr(loaded.get_submodule(owner), leaf))
    return official.requires_grad_(False)


@torch.inference_mode()
def _velocity(transformer: Flux2Transformer, given: Inputs, kind: Kind) -> Tensor:
    if kind is Kind.KV:
        cache = transformer.reference_cache(given.references_BRC, given.reference_ids, given.guidance_B)
        x, x_ids = given.x_BLC, given.x_ids
    else:
        cache = None
        x = torch.cat([given.x_BLC, given.references_BRC], dim=1)
        x_ids = torch.cat([given.x_ids, given.reference_ids])
    out: Tensor = transformer(
        x, x_ids, given.text_BTD, given.text_ids, given.timesteps_B, given.guidance_B, cache=cache
    )
    return out[:, : given.x_BLC.shape[1]]


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_the_transformer_is_seen(mistake: str, transformer: Flux2Transformer, files: ModelFiles) -> None:
    given = inputs_for(transformer)
    right = _velocity(transformer, given, files.variant.kind)
    with _weights_kept(transformer):
        wrong = _velocity(transformer, MISTAKES[mistake](transformer, given), files.variant.kind)
    assert relative_error(wrong, right) > SEEN


def test_another_guidance_is_seen(built: Models) -> None:
    files = built.files("dev")
    transformer = load_transformer(files.transformer, FLOAT32, files.transformer_config)
    given = inputs_for(transformer)
    assert given.guidance_B is not None
    right = _velocity(transformer, given, Kind.DEV)
    wrong = _velocity(transformer, replace(given, guidance_B=given.guidance_B + 0.25), Kind.DEV)
    assert relative_error(wrong, right) > SEEN


def test_how_references_are_attended_to_is_seen(transformer: Flux2Transformer) -> None:
    given = inputs_for(transformer)
    cached, joined = (_velocity(transformer, given, kind) for kind in (Kind.KV, Kind.KLEIN))
    assert relative_error(cached, joined) > SEEN


def test_the_transformer_is_alive(transformer: Flux2Transformer, files: ModelFiles) -> None:
    velocity = _velocity(transformer, inputs_for(transformer), files.variant.kind)
    assert 0.3 < float(velocity.std()) < 3.0
    assert float(velocity.std(dim=1).min()) > 0.1  # tokens differ from one another in every channel


AUTOENCODER_MISTAKES: Mapping[str, Callable[[Autoencoder, Tensor], Tensor]] = {
    "a sample instead of the mean": lambda autoencoder, image: autoencoder.whiten(
        torch.nn.functional.pixel_unshuffle(sum(autoencoder.encode_moments(image)), 2)  # type: ignore[arg-type]
    ),
    "patches before channels": lambda autoencoder, image: autoencoder.whiten(
        autoencoder.encode_moments(image)[0]
        .unflatten(3, (-1, 2))
        .unflatten(2, (-1, 2))
        .permute(0, 3, 5, 1, 2, 4)
        .flatten(1, 3)
    ),
    "statistics forgotten": lambda autoencoder, image: torch.nn.functional.pixel_unshuffle(
        autoencoder.encode_moments(image)[0], 2
    ),
    "pixels from 0 to 1": lambda autoencoder, image: autoencoder.encode(image / 2 + 0.5),
    "a picture one pixel further right": lambda autoencoder, image: autoencoder.encode(image.roll(1, dims=3)),
}


@pytest.mark.parametrize("mistake", AUTOENCODER_MISTAKES)
@torch.inference_mode()
def test_a_mistake_in_encoding_is_seen(mistake: str, files: ModelFiles) -> None:
    autoencoder = load_autoencoder(files.autoencoder, FLOAT32, files.autoencoder_config)
    image = to_tensor(sample_picture(Size(64, 48), SEED))
    right = autoencoder.encode(image)
    assert relative_error(AUTOENCODER_MISTAKES[mistake](autoencoder, image), right) > SEEN


@torch.inference_mode()
def test_the_eps_of_the_statistics_is_seen(files: ModelFiles) -> None:
    autoencoder = load_autoencoder(files.autoencoder, FLOAT32, files.autoencoder_config)
    image = to_tensor(sample_picture(Size(64, 48), SEED))
    right = autoencoder.encode(image)
    autoencoder.config = replace(autoencoder.config, batch_norm_eps=1e-5)
    assert relative_error(autoencoder.encode(image), right) > 2e-5  # twice the tolerance is all that it makes


@torch.inference_mode()
def test_pixels_are_alive(files: ModelFiles) -> None:
    autoencoder = load_autoencoder(files.autoencoder, FLOAT32, files.autoencoder_config)
    generator = torch.Generator().manual_seed(SEED)
    image = autoencoder.decode(torch.randn(1, files.variant.transformer.in_channels, 4, 4, generator=generator))
    assert 0.1 < float(image.std()) < 0.6
    assert float((image.abs() > 1).float().mean()) < 0.05  # clipped pixels would hide differences


@pytest.fixture(scope="module")
def tower(files: ModelFiles) -> TextTower:
    return load_tower(files.tower, FLOAT32, files.variant.text)


@torch.inference_mode()
def _states(files: ModelFiles, tower: TextTower, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
    tokens = PromptTokenizer(files.parts.tokenizer, files.variant.text)([prompt])
    return tokens.ids_BL, tokens.attended_BL, tower(tokens.ids_BL, tokens.attended_BL)


@torch.inference_mode()
def test_mistakes_in_the_text_tower_are_seen(
    files: ModelFiles, tower: TextTower, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids, attended, right = _states(files, tower, PROMPTS["short"])
    shift = int(attended.sum())
    early, middle, late = right.chunk(3, dim=-1)
    wrong = {
        "padding attended": tower(ids, torch.ones_like(attended)),
        "padding on the other side": tower(ids.roll(shift, 1), attended.roll(shift, 1)),
        "layers in another order": torch.cat([late, middle, early], dim=-1),
        "one layer too early": torch.cat([tower.layers[0](early, *_extras(tower, early, attended)), middle, late], -1),
    }
    monkeypatch.setattr(text_model, "causal_mask", lambda mask: mask[:, None, None, :].expand(-1, 1, mask.shape[1], -1))
    wrong["later tokens seen"] = tower(ids, attended)
    for mistake, states in wrong.items():
        assert relative_error(states, right) > SEEN, mistake
    assert all(0.3 < float(part.std()) < 10 for part in (early, middle, late))


def _extras(tower: TextTower, like: Tensor, attended: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sizes = tower.config.tower
    cos, sin = text_model.rotary_cos_sin(like.shape[1], sizes.head_dim, sizes.rope_theta, like)
    return cos, sin, text_model.causal_mask(attended)


def test_the_time_is_rounded_as_in_the_official_code() -> None:
    """A bfloat16 network gets `1000 x bf16(t)`, rounded to bfloat16 again; the reference's pipelines round thrice."""
    differing = 0
    for t in torch.linspace(1.0, 0.01, 100):
        official = 1000.0 * t.bfloat16()
        embedded = transformer_model.timestep_embedding(t.bfloat16()[None])
        exponents = torch.arange(128, dtype=torch.float32) / 128
        angles = official.float() * torch.exp(-torch.log(torch.tensor(10000.0)) * exponents)
        torch.testing.assert_close(embedded[0], torch.cat([angles.cos(), angles.sin()]), rtol=0, atol=1e-4)
        differing += bool((1000 * t).bfloat16() / 1000 * 1000 != official)
    assert differing > 0  # otherwise the page need not mention it
