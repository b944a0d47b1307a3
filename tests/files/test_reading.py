from pathlib import Path

import pytest

from licht.core.errors import InvalidImage, InvalidRequest
from licht.core.recipe import Recipe
from licht.files.reading import find_pictures, open_made, read_recipe
from licht.safety.policy import Level, Policy, release
from licht.safety.provenance import Making, metadata, read
from tests.core.test_recipe import FULL
from tests.support.pictures import image, picture, write_image

LONG = FULL.model_copy(update={"prompt": "a red sphere beside a blue cube. " * 900})


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("level", [Level.OFF, Level.DEFAULT])
@pytest.mark.parametrize("recipe", [FULL, LONG], ids=["short", "long"])
def test_the_recipe_survives_every_format_mark_and_signature(file_format: str, level: Level, recipe: Recipe) -> None:
    made = Making("nano", recipe=recipe.to_text(), payload=5)
    released = release(picture(160, 128), Policy(level), file_format, made)
    assert read_recipe(released.data) == recipe
    state = read(released.data, file_format).state
    assert state == ("none" if level is Level.OFF else "valid")


def test_the_signature_covers_the_recipe() -> None:
    made = Making("nano", recipe=FULL.to_text(), payload=5)
    signed = release(picture(160, 128), Policy(Level.DEFAULT), "PNG", made).data
    assert b"&quot;seed&quot;:7," in signed
    altered = signed.replace(b"&quot;seed&quot;:7,", b"&quot;seed&quot;:8,")
    assert read(altered, "PNG").state == "invalid"


def test_a_file_without_a_recipe_has_none(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.webp"):
        assert read_recipe(write_image(tmp_path / name).read_bytes()) is None


def test_bare_pixels_stay_bare_without_a_recipe() -> None:
    assert b"xmp" not in release(picture(), Policy(Level.OFF), "PNG", Making("nano")).data


def test_what_is_no_picture_of_ours_is_refused(tmp_path: Path) -> None:
    image().save(tmp_path / "a.bmp")
    with pytest.raises(InvalidImage, match="is no PNG, JPEG or WebP file"):
        open_made(tmp_path / "a.bmp")
    with pytest.raises(InvalidImage, match="cannot be read"):
        open_made(tmp_path / "nothing.png")
    with pytest.raises(InvalidImage, match="damaged"):
        read_recipe(b"\x89PNG\r\n\x1a\n")
    packet = metadata(Making(recipe="{}"))
    image().save(tmp_path / "b.jpg", xmp=packet)
    with pytest.raises(InvalidRequest, match="not in a way that can be read"):
        open_made(tmp_path / "b.jpg")


def test_pictures_are_found_by_what_they_show(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    (tmp_path / "broken.png").write_bytes(b"no picture")
    image().rotate(90).save(tmp_path / "turned.png")
    write_image(tmp_path / "copy.bmp")
    _, _, shown, recipe = open_made(tmp_path / "a.png")
    assert recipe is None
    found = find_pictures(tmp_path, frozenset({shown.content_hash(), "0" * 64}))
    assert set(found) == {shown.content_hash()}
    assert found[shown.content_hash()].name in ("a.png", "copy.bmp")
