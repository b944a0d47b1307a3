import re
from collections.abc import Mapping
from typing import Any

import pytest

from licht.checkpoint.folder import ModelFiles
from licht.core.errors import InvalidImage, InvalidRequest
from licht.core.request import ImageRequest
from licht.core.sizes import Size
from licht.engine.settle import Settled, settle, uses_two_passes
from licht.model.variants import VARIANTS, Kind, Variant
from tests.support.pictures import reference


def request(**fields: Any) -> ImageRequest:  # noqa: ANN401 - whatever a request has
    return ImageRequest(**{"prompt": "x", "seeds": (1,), **fields})


@pytest.fixture
def variants(files: Mapping[Kind, ModelFiles]) -> Mapping[Kind, Variant]:
    return {kind: found.variant for kind, found in files.items()}


def refused(made: ImageRequest, variant: Variant, message: str, field: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        settle(made, variant)
    assert caught.value.field == field


def test_what_is_left_open_is_the_models_default(variants: Mapping[Kind, Variant]) -> None:
    for kind, guidance in ((Kind.KLEIN, None), (Kind.KV, None), (Kind.BASE, 4.0), (Kind.DEV, 4.0)):
        settled = settle(request(), variants[kind])
        assert (settled.steps, settled.guidance) == (2, guidance)
        assert settled.size == settled.native == Size(128, 64)
        assert settled.warnings == ()


def test_what_is_asked_for_is_done(variants: Mapping[Kind, Variant]) -> None:
    settled = settle(request(steps=7, guidance=1.5, size=Size(64, 96)), variants[Kind.BASE])
    assert (settled.steps, settled.guidance, settled.size, settled.native) == (7, 1.5, Size(64, 96), Size(64, 96))


@pytest.mark.parametrize("kind", [Kind.KLEIN, Kind.KV])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 4.0])
def test_a_distilled_model_takes_no_guidance(variants: Mapping[Kind, Variant], kind: Kind, guidance: float) -> None:
    message = f"tiny-{kind} is distilled and takes no guidance scale; leave --guidance out or use a base or dev model"
    refused(request(guidance=guidance), variants[kind], message, "guidance")


@pytest.mark.parametrize("steps", [1, 50])
def test_any_model_takes_any_number_of_steps(variants: Mapping[Kind, Variant], steps: int) -> None:
    for variant in variants.values():
        assert settle(request(steps=steps), variant).steps == steps


def test_only_base_models_with_a_scale_need_two_passes(variants: Mapping[Kind, Variant]) -> None:
    assert uses_two_passes(variants[Kind.BASE], 4.0)
    assert uses_two_passes(variants[Kind.BASE], 0.0)
    assert not uses_two_passes(variants[Kind.BASE], 1.0)
    assert not uses_two_passes(variants[Kind.DEV], 4.0)
    assert not uses_two_passes(variants[Kind.KLEIN], None)


def test_beyond_the_trained_sizes_is_drawn_smaller_and_said_so(variants: Mapping[Kind, Variant]) -> None:
    settled = settle(request(size=Size(256, 128)), variants[Kind.KLEIN])
    assert (settled.size, settled.native) == (Size(256, 128), Size(128, 64))
    wanted = "tiny-klein was trained up to 128x64: drawn at 128x64, enlarged to 256x128"
    assert settled.warnings == (wanted,)


def test_native_only_refuses_what_would_be_enlarged(variants: Mapping[Kind, Variant]) -> None:
    message = "tiny-klein was trained up to 128x64, 256x128 was asked for; ask for 128x64 or drop --native-only"
    refused(request(size=Size(256, 128), native_only=True), variants[Kind.KLEIN], message, "size")
    assert settle(request(size=Size(128, 64), native_only=True), variants[Kind.KLEIN]).warnings == ()


@pytest.mark.parametrize("size", [Size(64, 512), Size(512, 64), Size(2048, 2048), Size(5760, 720)])
def test_every_size_that_can_be_asked_for_can_be_settled(variants: Mapping[Kind, Variant], size: Size) -> None:
    for variant in variants.values():
        settled = settle(request(size=size), variant)
        assert settled.size == size
        assert settled.native.area_px <= 128 * 64
    assert settle(request(size=size), VARIANTS["klein-4b"]).native == size


def test_too_many_references_are_refused(variants: Mapping[Kind, Variant]) -> None:
    four = tuple(reference(seed=n) for n in range(4))
    message = "4 reference images for tiny-kv, which takes at most 3; leave some out"
    refused(request(references=four), variants[Kind.KV], message, "images")
    assert len(settle(request(references=four[:3]), variants[Kind.KV]).references) == 3


def test_an_unfit_reference_is_named_by_its_number(variants: Mapping[Kind, Variant]) -> None:
    pair = (reference(), reference(63, 64, seed=2))
    with pytest.raises(
        InvalidImage, match=re.escape("image 2 (noise2.png) is 63x64 px; both sides must have at least")
    ):
        settle(request(references=pair), variants[Kind.KLEIN])


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [
        (80, 112, Size(80, 112)),
        (95, 127, Size(80, 112)),
        (560, 70, Size(512, 64)),  # 8:1 as it came, 8.75:1 when it is cut to whole tokens
        (67, 530, Size(64, 512)),
        (1500, 1100, Size(1488, 1088)),
        (3000, 2000, Size(2464, 1648)),
    ],
)
def test_without_a_size_the_first_reference_gives_it(width: int, height: int, size: Size) -> None:
    settled = settle(request(references=(reference(width, height),)), VARIANTS["klein-4b"])
    assert settled.size == settled.native == size


def test_several_references_are_capped_before_they_give_the_size() -> None:
    settled = settle(request(references=(reference(1500, 1100), reference())), VARIANTS["klein-4b"])
    assert settled.size == Size(1184, 864)
    assert isinstance(settled, Settled)
