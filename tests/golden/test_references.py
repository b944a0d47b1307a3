"""Reference pictures: prepared by the official rules, and never changed while a picture is drawn."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux2.image_processor import Flux2ImageProcessor
from PIL import Image
from torch import Tensor

from licht.core.request import ImageRequest, ImageResult, Reference
from licht.core.sizes import Size
from licht.engine.engine import Choice, Engine
from licht.engine.pictures import from_image, prepare_references, to_image, to_tensor
from licht.evaluation.measured import relative_error, sample_picture
from licht.model.transformer import Flux2Transformer, ReferenceCache
from licht.model.variants import VARIANTS, Kind
from tests.golden.sections import Models

VARIANT = VARIANTS["klein-4b"]

# (picture, alone, among several), worked out from the rules: shrink to at most 2024 x 2024 px alone or 1024 x 1024 px
# each among several, both sides times the same factor and rounded down; then cut down to multiples of 16.
PREPARED = [
    ((3000, 2000), (2464, 1648), (1248, 832)),  # 2478 x 1652, 1254 x 836
    ((1500, 1500), (1488, 1488), (1024, 1024)),
    ((1025, 1025), (1024, 1024), (1024, 1024)),
    ((67, 530), (64, 528), (64, 528)),
    ((2024, 2024), (2016, 2016), (1008, 1008)),  # the factor, rounded, gives 1023 px and no more
    ((2025, 2025), (2016, 2016), (1024, 1024)),
    ((5000, 4000), (2256, 1808), (1136, 912)),  # 2262 x 1810, 1144 x 915
    ((4000, 500), (4000, 496), (2896, 352)),  # 2896 x 362
    ((1920, 1080), (1920, 1072), (1360, 768)),  # 1365 x 768
    ((1024, 1024), (1024, 1024), (1024, 1024)),
    ((640, 480), (640, 480), (640, 480)),
]


def _flat(width: int, height: int) -> Reference:
    return Reference(from_image(Image.new("RGB", (width, height), (90, 120, 150))))


@pytest.mark.parametrize(("size", "alone", "among_several"), PREPARED)
def test_sizes_follow_the_official_rules(
    size: tuple[int, int], alone: tuple[int, int], among_several: tuple[int, int]
) -> None:
    (single,) = prepare_references([_flat(*size)], VARIANT)
    assert single.size == Size(*alone)
    assert [picture.size for picture in prepare_references([_flat(*size), _flat(64, 64)], VARIANT)] == [
        Size(*among_several),
        Size(64, 64),
    ]


def _reference_pixels(image: Image.Image) -> Tensor:
    """What the pipelines of the reference hand to their encoder."""
    processor: Any = Flux2ImageProcessor(vae_scale_factor=16)
    if image.width * image.height > 1024 * 1024:
        image = processor._resize_to_target_area(image, 1024 * 1024)
    width, height = image.width // 16 * 16, image.height // 16 * 16
    pixels: Tensor = processor.preprocess(image, height=height, width=width, resize_mode="crop")
    return pixels


@pytest.mark.parametrize("size", [(67, 530), (640, 480), (1023, 1025), (131, 97), (1024, 1024)])
def test_small_pictures_become_the_same_pixels_as_in_the_reference(size: tuple[int, int]) -> None:
    picture = sample_picture(Size(*size), 3)
    (ours,) = prepare_references([Reference(picture)], VARIANT)
    assert relative_error(to_tensor(ours), _reference_pixels(to_image(picture))) < 1e-6


@pytest.mark.parametrize("size", [(1300, 900), (1025, 1025), (2024, 2024), (2000, 260)])
def test_several_large_pictures_become_the_same_pixels_as_in_the_reference(size: tuple[int, int]) -> None:
    picture = sample_picture(Size(*size), 4)
    ours, _ = prepare_references([Reference(picture), _flat(64, 64)], VARIANT)
    assert relative_error(to_tensor(ours), _reference_pixels(to_image(picture))) < 1e-6


def test_a_single_large_picture_keeps_more_than_in_the_reference() -> None:
    (ours,) = prepare_references([_flat(1500, 1500)], VARIANT)
    theirs = _reference_pixels(Image.new("RGB", (1500, 1500)))
    assert ours.size == Size(1488, 1488)
    assert tuple(theirs.shape[2:]) == (1024, 1024)


@contextmanager
def _spied(transformer: Flux2Transformer) -> Iterator[tuple[list[Tensor], list[ReferenceCache | None]]]:
    """Copies of the tokens, and the caches, that the transformer is given step by step."""
    tokens: list[Tensor] = []
    caches: list[ReferenceCache | None] = []

    def spy(_module: object, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        tokens.append(arguments[0].clone())
        caches.append(named["cache"])

    handle = transformer.register_forward_pre_hook(spy, with_kwargs=True)
    try:
        yield tokens, caches
    finally:
        handle.remove()


def _draw(engine: Engine, steps: int) -> list[ImageResult]:
    pictures = [sample_picture(size, n) for n, size in enumerate([Size(64, 96), Size(80, 64), Size(67, 70)])]
    request = ImageRequest("put them together", (3, 4), tuple(map(Reference, pictures)), Size(80, 64), steps)
    return [event for event in engine.run(request) if isinstance(event, ImageResult)]


@pytest.mark.parametrize("kind", ["klein", "base", "dev"])
def test_reference_tokens_are_never_integrated(kind: str, built: Models) -> None:
    engine = Engine(built.files(kind), Choice("cpu", "float32"), batch_size=2)
    with _spied(engine.transformer) as (tokens, caches):
        _draw(engine, steps=5)
    length, references = 5 * 4, 4 * 6 + 5 * 4 + 4 * 4
    rows = 4 if engine.variant.kind is Kind.BASE else 2

    assert len(tokens) == 5
    assert {tuple(x.shape[:2]) for x in tokens} == {(rows, length + references)}
    assert caches == [None] * 5
    first = tokens[0][:1, length:]
    assert all(torch.equal(x[:, length:], first.expand(rows, -1, -1)) for x in tokens)
    assert not torch.equal(tokens[0][:, :length], tokens[1][:, :length])


def test_cached_references_stay_as_they_are(built: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(built.files("kv"), Choice("cpu", "float32"), batch_size=2)
    made: list[tuple[ReferenceCache, list[Tensor]]] = []
    compute = Flux2Transformer.reference_cache

    def remembering(
        self: Flux2Transformer, ref_BRC: Tensor, ref_ids: Tensor, guidance_B: Tensor | None = None
    ) -> ReferenceCache:
        cache = compute(self, ref_BRC, ref_ids, guidance_B)
        made.append((cache, _copies(cache)))
        return cache

    monkeypatch.setattr(Flux2Transformer, "reference_cache", remembering)
    with _spied(engine.transformer) as (tokens, caches):
        _draw(engine, steps=5)

    ((cache, before),) = made
    assert {tuple(x.shape[:2]) for x in tokens} == {(2, 5 * 4)}  # the picture alone
    assert len(caches) == 5
    assert all(used is cache for used in caches)
    assert all(torch.equal(now, was) for now, was in zip(_copies(cache), before, strict=True))


def _copies(cache: ReferenceCache) -> list[Tensor]:
    return [tensor.clone() for pair in cache.double + cache.single for tensor in pair]
