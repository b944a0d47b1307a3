"""Opening pictures from outside: every limit is checked on the header, before a pixel is decoded."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from licht.core.errors import InvalidImage
from licht.core.request import Picture, Reference

FORMATS: Final = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
MAX_FILE_BYTES: Final = 64 * 1024 * 1024
MAX_PIXELS: Final = 100_000_000


def open_reference(path: Path) -> Reference:
    """Read a picture file as a reference. Raises `InvalidImage` with what is wrong with it."""
    data = read_file(path, str(path))
    picture, file_format = open_picture(data, str(path)), file_format_of(data)
    if file_format is None:
        return Reference(picture, path.name)
    return Reference(picture, path.name, data, f"image/{file_format.lower()}")


def file_format_of(data: bytes) -> str | None:
    """PNG, JPEG or WEBP, the formats that can hold content credentials, by the first bytes; None for any other."""
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None


def open_picture(source: Path | bytes, name: str | None = None) -> Picture:
    """Decode an untrusted picture to upright 8-bit sRGB.

    Only the formats in `FORMATS` are tried. Raises `InvalidImage` for a missing or unreadable file, an animation, too
    many bytes or too many pixels.
    """
    label = name or (str(source) if isinstance(source, Path) else "the picture")
    data = read_file(source, label) if isinstance(source, Path) else source
    if len(data) > MAX_FILE_BYTES:
        raise InvalidImage(
            f"{label} is a file of more than {MAX_FILE_BYTES:,} bytes; make the picture smaller first", field="images"
        )
    with _decoding(label), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        return from_pil(image, label)


def from_pil(image: Image.Image, name: str = "the picture") -> Picture:
    """A Pillow image as upright 8-bit sRGB; transparency is dropped, as in the official code.

    Raises `InvalidImage` for an animation, too many pixels, or pixels that cannot be decoded or converted.
    """
    with _decoding(name):
        _check_header(image, name)
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I;16"):
            image = image.convert("I").point(lambda value: value * (1 / 257) + 0.5).convert("L")
        profile = image.info.get("icc_profile")
        if profile and image.mode in ("RGB", "RGBA", "CMYK", "L"):
            image = _to_srgb(image, profile)
        rgb = image.convert("RGB")
        return Picture(rgb.width, rgb.height, rgb.tobytes())


@contextmanager
def _decoding(label: str) -> Iterator[None]:
    """Turn whatever a decoder does with bad data into one clear line."""
    with warnings.catch_warnings():
        # Pillow warns of oddities that nobody can repair here, and at a limit of its own; ours is checked on the header
        warnings.simplefilter("ignore")
        try:
            yield
        except InvalidImage:
            raise
        except UnidentifiedImageError as error:
            raise InvalidImage(f"{label} is not a picture in {_choices()}; save it as one", field="images") from error
        except Image.DecompressionBombError as error:
            raise InvalidImage(
                f"{label} has far too many pixels; at most {MAX_PIXELS:,} are read", field="images"
            ) from error
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise InvalidImage(f"{label} is damaged and cannot be decoded; save it again", field="images") from error


def _to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Apply an embedded colour profile; a broken one is ignored, as every viewer does."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError):
        return image
    return converted if converted is not None else image


def _check_header(image: Image.Image, label: str) -> None:
    frames = getattr(image, "n_frames", 1)
    # cameras put a preview or a second eye behind the picture itself, which comes first
    if frames > 1 and image.format != "MPO":
        raise InvalidImage(f"{label} is an animation of {frames} frames; use a single picture", field="images")
    if image.mode in ("I", "F"):
        raise InvalidImage(
            f"{label} has 32 bits a channel and does not say what is white; save it with 8 or 16 bits", field="images"
        )
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise InvalidImage(
            f"{label} is {width}x{height} px, more than {MAX_PIXELS:,} pixels; make it smaller first", field="images"
        )


def read_file(path: Path, label: str) -> bytes:
    """The bytes of an untrusted file, at most one more than `MAX_FILE_BYTES`. Raises `InvalidImage`."""
    try:
        with path.open("rb") as file:
            # no more than this: the size of a pipe or a device is not known beforehand
            return file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InvalidImage(f"{label} cannot be read ({reason}); check the path", field="images") from error


def thumbnail(picture: Picture, side_px: int = 512) -> bytes:
    """A small PNG of a caller's own input, to show it to that caller: no model made it, so nothing marks it."""
    image = Image.frombytes("RGB", (picture.width, picture.height), picture.rgb)
    image.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _choices() -> str:
    return ", ".join(FORMATS[:-1]) + f" or {FORMATS[-1]}"
