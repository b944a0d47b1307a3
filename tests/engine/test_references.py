"""How much each reference counts: a bias on its keys, against the whole network with a matrix of all pairs."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from licht.core.request import ImageRequest, ImageResult, Picture, Reference
from licht.core.sizes import Size
from licht.engine import stages
from licht.engine.engine import Choice, Engine
from licht.engine.settle import settle
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Kind
from tests.engine.conftest import Fresh
from tests.support.pictures import picture, reference

Engines = Mapping[Kind, Engine]
ONE, TWO = reference(64, 64, 1), reference(80, 64, 2)
TEXT_TOKENS, GRID = 6, (4, 4)
STRENGTHS = (0.3, 2.5)


def draw(engine: Engine, *references: Reference) -> Picture:
    request = ImageRequest("a cat", (1,), references, Size(64, 64))
    (result,) = [event for event in engine.run(request) if isinstance(event, ImageResult)]
    return result.picture


@pytest.mark.parametrize("kind", list(Kind))
def test_strength_one_is_exactly_the_plain_path(engines: Engines, kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    biases: list[object] = []
    forward = Flux2Transformer.forward

    def watched(network: Flux2Transformer, *args: Any, **named: Any) -> Tensor:  # noqa: ANN401
        biases.append(named["bias"])
        return forward(network, *args, **named)

    monkeypatch.setattr(Flux2Transformer, "forward", watched)
    plain = draw(engines[kind], ONE, TWO)
    assert draw(engines[kind], replace(ONE, strength=1.0), replace(TWO, strength=1)) == plain
    assert set(biases) == {None}
    assert draw(engines[kind], replace(ONE, strength=2.0), TWO) != plain
    assert biases[-1] is not None


@pytest.mark.parametrize("kind", list(Kind))
def test_strength_zero_leaves_out_and_the_others_stay_where_they_are(engines: Engines, kind: Kind) -> None:
    engine = engines[kind]
    found = draw(engine, replace(ONE, strength=0.0), TWO)
    assert found not in (draw(engine, ONE, TWO), draw(engine, TWO))
    settled = settle(ImageRequest("a cat", (1,), (replace(ONE, strength=0), TWO), Size(64, 64)), engine.variant)
    assert (len(settled.references), settled.places) == (1, (stages.Place(2),))
    alone = stages.join_references(
        [stages.encode_reference(engine.autoencoder, settled.references[0])], [stages.Place(2)]
    )
    assert set(alone.ids[:, 0].tolist()) == {20}
    # with nothing said about strengths, and only the second picture, at the second place
    assert draw_with(engine, alone) == found


def draw_with(engine: Engine, references: stages.ReferenceTokens) -> Picture:
    """The drawing of `draw`, assembled from the stages."""
    from licht.sampling.noise import initial_noise
    from licht.sampling.schedule import sigmas
    from licht.sampling.solvers import euler

    settled = settle(ImageRequest("a cat", (1,), (TWO,), Size(64, 64)), engine.variant)
    text = stages.encode_prompt(engine.tower, engine.tokenizer(["a cat"]))
    empty = stages.encode_prompt(engine.tower, engine.tokenizer([""])) if engine.variant.kind is Kind.BASE else None
    cache = None
    if engine.variant.caches_references:
        cache = stages.cache_references(engine.transformer, references, settled.guidance)
    conditions = stages.Conditions(text, empty, settled.guidance, references, cache)
    velocity = stages.velocity_of(engine.transformer, conditions, GRID)
    latents = initial_noise(1, GRID, engine.variant.transformer.in_channels)
    *_, final = euler(velocity, latents, sigmas(16, settled.steps))
    return stages.decode(engine.autoencoder, final, GRID)


def test_a_reference_that_does_not_count_still_gives_the_size(engines: Engines) -> None:
    wide = replace(reference(128, 64, 3), strength=0.0)
    settled = settle(ImageRequest("a cat", (1,), (wide,)), engines[Kind.KLEIN].variant)
    assert (settled.size, settled.references, settled.places) == (Size(128, 64), (), ())
    assert draw(engines[Kind.KLEIN], replace(ONE, strength=0)) == draw(engines[Kind.KLEIN])


def test_a_stronger_reference_draws_more_of_it(engines: Engines) -> None:
    """Towards what the picture becomes without the reference, and away from it."""
    engine = engines[Kind.KLEIN]
    without = torch.tensor(list(draw(engine).rgb)).float()
    distances = [
        (torch.tensor(list(draw(engine, replace(ONE, strength=strength)).rgb)).float() - without).pow(2).mean().item()
        for strength in (0.0, 0.1, 1.0, 4.0)
    ]
    assert distances[0] == 0.0
    assert distances == sorted(distances)


def conditions_of(engine: Engine, strengths: tuple[float, ...]) -> stages.Conditions:
    latents = [stages.encode_reference(engine.autoencoder, one) for one in (picture(64, 64, 1), picture(80, 64, 2))]
    places = [stages.Place(number, strength) for number, strength in enumerate(strengths, start=1)]
    references = stages.join_references(latents, places)
    guidance = engine.variant.default_guidance if engine.variant.takes_guidance else None
    text = torch.randn(1, TEXT_TOKENS, 48, generator=torch.Generator().manual_seed(3))
    cache = None
    if engine.variant.caches_references:
        cache = stages.cache_references(engine.transformer, references, guidance)
    return stages.Conditions(text, None, guidance, references, cache)


@pytest.mark.parametrize("kind", list(Kind))
def test_strengths_are_a_bias_of_text_and_picture_on_the_keys_of_references(
    engines: Engines, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the same network with a matrix of log strengths for every pair of query and key."""
    engine = engines[kind]
    conditions = conditions_of(engine, STRENGTHS)
    latents = torch.randn(2, 16, 16, generator=torch.Generator().manual_seed(4))
    found = stages.velocity_of(engine.transformer, conditions, GRID)(latents, 0.6)
    plain = stages.velocity_of(engine.transformer, conditions_of(engine, (1.0, 1.0)), GRID)(latents, 0.6)

    logs = torch.cat([torch.full((16,), STRENGTHS[0]), torch.full((20,), STRENGTHS[1])]).log()
    text_and_picture = TEXT_TOKENS + 16
    if engine.variant.caches_references:
        matrix = torch.zeros(text_and_picture, text_and_picture + 36)
        matrix[:, TEXT_TOKENS : TEXT_TOKENS + 36] = logs
    else:
        matrix = torch.zeros(text_and_picture + 36, text_and_picture + 36)
        matrix[:text_and_picture, text_and_picture:] = logs
    forward = Flux2Transformer.forward

    def with_matrix(network: Flux2Transformer, *args: Any, **named: Any) -> Tensor:  # noqa: ANN401
        return forward(network, *args, **{**named, "bias": matrix})

    monkeypatch.setattr(Flux2Transformer, "forward", with_matrix)
    wanted = stages.velocity_of(engine.transformer, conditions, GRID)(latents, 0.6)
    assert ((found - wanted).norm() / wanted.norm()).item() < 2e-6  # measured: 0
    assert ((found - plain).norm() / plain.norm()).item() > 1e-2


def test_keys_of_cached_references_do_not_depend_on_strengths(fresh: Fresh) -> None:
    engine = fresh(Kind.KV)
    plain, strong = (conditions_of(engine, strengths).cache for strengths in ((1.0, 1.0), STRENGTHS))
    assert plain is not None
    assert strong is not None
    for one, other in zip(plain.double + plain.single, strong.double + strong.single, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_in_bfloat16_strengths_stay_close_to_float32(engines: Engines) -> None:
    exact = engines[Kind.KLEIN]
    rough = Engine(exact.files, Choice("cpu", "bfloat16"))
    latents = torch.randn(1, 16, 16, generator=torch.Generator().manual_seed(4))
    found, wanted = (
        stages.velocity_of(engine.transformer, conditions_of(engine, STRENGTHS), GRID)(latents, 0.6)
        for engine in (rough, exact)
    )
    assert ((found - wanted).norm() / wanted.norm()).item() < 5e-2  # measured: 7.3e-3
