import io
import os
import struct
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps, TiffImagePlugin

from licht.core.errors import InvalidImage
from licht.safety import images
from licht.safety.images import MAX_FILE_BYTES, from_pil, open_picture, open_reference
from tests.support.bounds import little_memory
from tests.support.pictures import encoded, image, pixels, png_header, write_image

LOSSLESS = ["PNG", "BMP", "TIFF"]
ORIENTATION = 0x0112


def refused(source: Path | bytes, *parts: str) -> str:
    with pytest.raises(InvalidImage) as caught:
        open_picture(source)
    for part in parts:
        assert part in caught.value.message
    assert caught.value.field == "images"
    assert caught.value.exit_code == 2
    return caught.value.message


@pytest.mark.parametrize("file_format", [*LOSSLESS, "JPEG", "WEBP"])
def test_every_known_format_is_read(file_format: str) -> None:
    given = image(70, 66)
    made = open_picture(encoded(given, file_format))
    assert (made.width, made.height) == (70, 66)
    worst = np.abs(pixels(made).astype(int) - np.asarray(given)).max()
    assert worst == 0 if file_format in LOSSLESS else worst < 16


def test_a_reference_bears_the_name_of_its_file(tmp_path: Path) -> None:
    reference = open_reference(write_image(tmp_path / "my cat.png"))
    assert reference.name == "my cat.png"
    assert reference.picture.rgb == image().tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    given = image(16, 16).convert("L")
    if mode == "I;16":
        given = Image.fromarray(np.asarray(given).astype(np.uint16) * 257)
    else:
        given = given.convert(mode)
    made = open_picture(encoded(given, "PNG"))
    wanted = np.asarray(image(16, 16).convert("L").convert("1" if mode == "1" else "L").convert("RGB"))
    assert np.abs(pixels(made).astype(int) - wanted).max() <= 1


def test_cmyk_and_grey_photographs_are_read() -> None:
    grey = open_picture(encoded(image().convert("L"), "JPEG"))
    assert np.ptp(pixels(grey), axis=2).max() == 0
    cmyk = open_picture(encoded(image().convert("CMYK"), "JPEG"))
    assert np.abs(pixels(cmyk).astype(int) - np.asarray(image())).mean() < 10


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
@pytest.mark.parametrize("order", ["<u2", ">u2"])
def test_sixteen_bits_are_rounded_to_eight_and_not_clipped(file_format: str, order: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65535, 65407, 65406]], dtype=order)
    buffer = io.BytesIO()
    Image.fromarray(values).save(buffer, file_format)
    assert pixels(open_picture(buffer.getvalue()))[0, :, 0].tolist() == [0, 0, 1, 1, 128, 255, 255, 254]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_thirty_two_bits_are_refused_because_white_is_unknown(dtype: type) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((8, 8), dtype=dtype)).save(buffer, "TIFF")
    refused(buffer.getvalue(), "has 32 bits a channel and does not say what is white; save it with 8 or 16 bits")


def test_transparency_is_dropped_and_not_blended() -> None:
    given = image().convert("RGBA")
    given.putalpha(0)
    assert pixels(open_picture(encoded(given, "PNG"))).tobytes() == image().tobytes()


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(file_format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encoded(image(80, 64), file_format, exif)
    made = open_picture(data)
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert made.rgb == wanted.convert("RGB").tobytes()
    assert (made.width, made.height) == ((80, 64) if orientation < 5 else (64, 80))
    turned = pixels(made).astype(int)
    red_grows = {1: (0, 1), 2: (0, -1), 3: (0, -1), 4: (0, 1), 5: (1, 0), 6: (1, 0), 7: (-1, 0), 8: (-1, 0)}
    down, right = red_grows[orientation]
    assert np.sign(turned[-1, 0, 0] - turned[0, 0, 0]) * (abs(turned[-1, 0, 0] - turned[0, 0, 0]) > 128) == down
    assert np.sign(turned[0, -1, 0] - turned[0, 0, 0]) * (abs(turned[0, -1, 0] - turned[0, 0, 0]) > 128) == right


@pytest.mark.parametrize("orientation", [0, 9, 255])
def test_an_orientation_that_means_nothing_is_ignored(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    assert pixels(open_picture(encoded(image(80, 64), "PNG", exif))).tobytes() == image(80, 64).tobytes()


def swapped_profile() -> bytes:
    """sRGB with the red and the blue primary exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = struct.unpack(">I", profile[128:132])[0]
    places = {bytes(profile[at : at + 4]): at for at in range(132, 132 + 12 * count, 12)}
    for tag in (b"XYZ", b"TRC"):
        red, blue = places[b"r" + tag], places[b"b" + tag]
        profile[red + 4 : red + 12], profile[blue + 4 : blue + 12] = (
            profile[blue + 4 : blue + 12],
            profile[red + 4 : red + 12],
        )
    return bytes(profile)


def test_colours_are_converted_to_srgb() -> None:
    data = encoded(image(), "PNG", icc_profile=swapped_profile())
    exchanged = np.asarray(image())[..., ::-1].astype(int)
    assert np.abs(pixels(open_picture(data)) - exchanged).max() <= 2


def test_the_profile_of_srgb_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    data = encoded(image(), "PNG", icc_profile=profile)
    assert np.abs(pixels(open_picture(data)).astype(int) - np.asarray(image())).max() <= 1


@pytest.mark.parametrize("profile", [b"nonsense", b"\0" * 128, swapped_profile()[:200]])
def test_a_broken_profile_is_ignored(profile: bytes) -> None:
    assert pixels(open_picture(encoded(image(), "PNG", icc_profile=profile))).tobytes() == image().tobytes()


def test_a_profile_of_another_kind_of_picture_is_ignored() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    made = open_picture(encoded(image().convert("L"), "PNG", icc_profile=profile))
    assert np.array_equal(pixels(made)[..., 0], np.asarray(image().convert("L")))


@pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF"])
def test_animations_are_refused(file_format: str) -> None:
    buffer = io.BytesIO()
    frames = [image(), image().rotate(90), image().rotate(180)]
    frames[0].save(buffer, file_format, save_all=True, append_images=frames[1:])
    refused(buffer.getvalue(), "is an animation of 3 frames; use a single picture")


def test_a_photograph_with_a_preview_behind_it_is_no_animation() -> None:
    buffer = io.BytesIO()
    image(80, 64).save(buffer, "MPO", save_all=True, append_images=[image(16, 16)])
    assert Image.open(io.BytesIO(buffer.getvalue())).format == "MPO"
    made = open_picture(buffer.getvalue())
    assert (made.width, made.height) == (80, 64)


@pytest.mark.parametrize("file_format", ["GIF", "PPM", "ICO", "TGA", "PDF", "EPS"])
def test_other_formats_are_not_even_tried(file_format: str) -> None:
    buffer = io.BytesIO()
    image().save(buffer, file_format)
    refused(buffer.getvalue(), "the picture is not a picture in PNG, JPEG, WEBP, BMP or TIFF; save it as one")


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"\x89PNG", b"\x89PNG\r\n\x1a\n", b"<svg/>", b"\xff\xd8\xff", bytes(64)]
)
def test_what_is_no_picture_is_refused(data: bytes) -> None:
    message = refused(data)
    assert "is not a picture in" in message or "is damaged and cannot be decoded; save it again" in message


@pytest.mark.parametrize("file_format", [*LOSSLESS, "JPEG", "WEBP"])
@pytest.mark.parametrize("kept", [0.2, 0.6, 0.95])
def test_a_truncated_picture_is_refused(file_format: str, kept: float) -> None:
    data = encoded(image(200, 200), file_format)
    message = refused(data[: int(len(data) * kept)])
    assert "is damaged and cannot be decoded" in message or "is not a picture" in message


@pytest.mark.timeout(200)
@pytest.mark.parametrize("size", [(10_001, 10_000), (50_000, 50_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_decompression_bombs_are_refused_by_their_header(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("pixels were decoded"))
    message = refused(png_header(*size))
    assert "more than 100,000,000 pixels; make it smaller first" in message or "far too many pixels; at most" in message


def test_no_pixel_is_decoded_of_what_the_header_rules_out(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    image().save(buffer, "WEBP", save_all=True, append_images=[image().rotate(90)])
    monkeypatch.setattr(Image.Image, "convert", lambda *args: pytest.fail("pixels were converted"))
    refused(buffer.getvalue(), "is an animation of 2 frames")


def test_a_large_file_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    refused(path, str(path), f"is a file of more than {MAX_FILE_BYTES:,} bytes; make the picture smaller first")
    refused(bytes(MAX_FILE_BYTES + 1), "is a file of more than")


@pytest.mark.timeout(200)
def test_an_endless_file_is_not_read_to_its_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1000)
    with little_memory():
        refused(Path("/dev/zero"), "/dev/zero is a file of more than 1,000 bytes")


def test_a_pipe_will_do(tmp_path: Path) -> None:
    path = tmp_path / "pipe.png"
    os.mkfifo(path)
    writer = threading.Thread(target=lambda: path.write_bytes(encoded(image(), "PNG")))
    writer.start()
    made = open_picture(path)
    writer.join()
    assert made.rgb == image().tobytes()


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent.png", "No such file or directory"),
        ("", "Is a directory"),
        ("a" * 300, "File name too long"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str, reason: str) -> None:
    refused(tmp_path / name, f"cannot be read ({reason}); check the path")


def test_the_name_in_the_message_may_be_given() -> None:
    with pytest.raises(InvalidImage, match="image 2 is not a picture"):
        open_picture(b"x", "image 2")


class TestPillowImages:
    def test_they_are_treated_like_their_files(self) -> None:
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        data = encoded(image(80, 64), "PNG", exif, swapped_profile())
        assert from_pil(Image.open(io.BytesIO(data))) == open_picture(data)

    def test_an_animation_is_refused(self) -> None:
        buffer = io.BytesIO()
        image().save(buffer, "GIF", save_all=True, append_images=[image().rotate(90)])
        with pytest.raises(InvalidImage, match="image 1 is an animation of 2 frames"):
            from_pil(Image.open(io.BytesIO(buffer.getvalue())), "image 1")

    def test_a_truncated_file_that_was_only_opened_is_refused(self) -> None:
        data = encoded(image(200, 200), "JPEG")
        with pytest.raises(InvalidImage, match="image 1 is damaged and cannot be decoded"):
            from_pil(Image.open(io.BytesIO(data[: len(data) // 2])), "image 1")

    def test_a_mode_that_cannot_be_converted_is_refused(self) -> None:
        with pytest.raises(InvalidImage, match="cannot be decoded"):
            from_pil(Image.new("La", (64, 64)))


def test_nothing_is_printed_about_odd_files(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = bytearray(encoded(image(80, 64), "JPEG", exif))
    at = data.index(b"Exif\0\0") + 6
    data[at + 8 : at + 10] = b"\xff\xff"  # more entries than there are
    open_picture(bytes(data))
    tiff = io.BytesIO()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[65000] = "x" * 10
    image().save(tiff, "TIFF", tiffinfo=info)
    open_picture(tiff.getvalue())
    assert not recwarn.list
    assert capfd.readouterr() == ("", "")
