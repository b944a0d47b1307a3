"""What a picture file says about how it was made."""

import html
import io
import re
import warnings
from pathlib import Path
from typing import Final

from PIL import Image

from licht.core.errors import InvalidImage
from licht.core.recipe import Recipe
from licht.core.request import Picture
from licht.safety.images import file_format_of, open_picture, read_file
from licht.safety.provenance import RECIPE_ATTRIBUTE

_RECIPE: Final = re.compile(rf'\s{RECIPE_ATTRIBUTE}="([^"<>]*)"')
_LONGEST_PACKET: Final = 2**20


def read_recipe(data: bytes) -> Recipe | None:
    """The recipe in a PNG, JPEG or WebP file; None if it holds none. Raises `InvalidRequest` for a broken one."""
    found = _RECIPE.search(_packet(data))
    return None if found is None else Recipe.from_text(html.unescape(found[1]))


def open_made(path: Path) -> tuple[bytes, str, Picture, Recipe | None]:
    """A picture file: its bytes, its format, its pixels and its recipe. Raises `InvalidImage`, `InvalidRequest`."""
    data = read_file(path, str(path))
    file_format = file_format_of(data)
    if file_format is None:
        raise InvalidImage(f"{path} is no PNG, JPEG or WebP file; name a picture that Licht has written", field="file")
    return data, file_format, open_picture(data, str(path)), read_recipe(data)


def find_pictures(folder: Path, wanted: frozenset[str], most: int = 500) -> dict[str, Path]:
    """Files in `folder` (not below it) whose pixels have one of the hashes `wanted`: hash -> path.

    At most `most` files are opened, the newest first.
    """
    found: dict[str, Path] = {}
    files = [path for path in folder.iterdir() if path.suffix.lower() in _SUFFIXES and path.is_file()]
    for path in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)[:most]:
        if len(found) == len(wanted):
            break
        try:
            digest = open_picture(path).content_hash()
        except InvalidImage:
            continue
        if digest in wanted and digest not in found:
            found[digest] = path
    return found


_SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def _packet(data: bytes) -> str:
    """The XMP packet of a file, or "": only the headers are read, no pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                packet = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or ""
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise InvalidImage("the file is damaged and cannot be read; save it again", field="file") from error
    text = packet.decode("utf-8", "replace") if isinstance(packet, bytes) else str(packet)
    return text[:_LONGEST_PACKET]
