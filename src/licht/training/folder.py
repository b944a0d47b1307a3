"""Folders of one's own pictures as training data: captioned ones, and targets with references (before, after, others).

A picture `name.png` has its captions in `name.txt`, one a line. Pictures with references stand in `metadata.jsonl`, one
object a line: `{"file": "after.png", "text": "make it blue", "references": ["before.png"]}`; `text` may be a list.
"""

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from licht.core.errors import InvalidSettings
from licht.training.config import Broken, Recipe, Source, Stream
from licht.training.files import DIGEST_DIGITS, not_written, write_text
from licht.training.tokenizer import CaptionEncoder

METADATA: Final = "metadata.jsonl"
SUFFIXES: Final = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_LISTED: Final = 20
_ROWS: Final = "rows.json"
_KEYS: Final = {"file", "text", "references"}


@dataclass(frozen=True, slots=True)
class FolderRow:
    """One target, its captions, its references. `size` is (width, height) of the target in pixels."""

    file: Path
    texts: tuple[str, ...]
    references: tuple[Path, ...]
    size: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Listing:
    """What a folder holds. `broken` and `untold` name what cannot be used, the first with the reason."""

    rows: tuple[FolderRow, ...]
    broken: tuple[tuple[Path, str], ...]
    untold: tuple[Path, ...]

    def summary(self, unusable: Path | None = None) -> str:
        """One line with counts, the first names, and the file `unusable` that names the rest."""
        said = [f"{len(self.rows)} usable"]
        if self.broken:
            said.append(f"{len(self.broken)} broken ({_few([f'{path.name}: {why}' for path, why in self.broken])})")
        if self.untold:
            said.append(f"{len(self.untold)} without a caption ({_few([path.name for path in self.untold])})")
        if unusable is not None and max(len(self.broken), len(self.untold)) > _LISTED:
            said.append(f"all of them listed in {unusable}")
        return ", ".join(said)

    def unusable(self) -> str:
        """What cannot be used, one file a line with the reason."""
        found = [*self.broken, *((path, "has no caption") for path in self.untold)]
        return "".join(f"{path}: {why}\n" for path, why in found)


def scan(folder: Path, broken: Broken, unusable: Path | None = None) -> Listing:
    """List a folder; every picture is opened and decoded once. The file `unusable` gets what cannot be used.

    Raises `InvalidSettings` for a folder with nothing usable in it, for metadata that cannot be understood, and, if
    `broken` says so, for any picture that is broken or has no caption; `OutputFailed`.
    """
    if not folder.is_dir():
        raise InvalidSettings(f"the data folder {folder} is not there; name a folder of pictures", field="folder")
    listed = _from_metadata(folder) if (folder / METADATA).is_file() else _from_captions(folder)
    rows: list[FolderRow] = []
    bad: list[tuple[Path, str]] = []
    untold: list[Path] = []
    for file, texts, references in listed:
        if not texts:
            untold.append(file)
            continue
        checked = [(path, _size_of(path)) for path in (file, *references)]
        wrong = [(path, found) for path, found in checked if isinstance(found, str)]
        bad += wrong
        size = checked[0][1]
        if not wrong and not isinstance(size, str):
            rows.append(FolderRow(file, texts, references, size))
    listing = Listing(tuple(rows), tuple(dict.fromkeys(bad)), tuple(untold))
    _write_unusable(listing, unusable)
    if not rows:
        raise InvalidSettings(f"{folder} has no usable pictures: {listing.summary(unusable)}", field="folder")
    if broken is Broken.REFUSE and (bad or untold):
        raise InvalidSettings(
            f"{folder}: {listing.summary(unusable)}; mend or remove them, or set data.broken=skip", field="data.broken"
        )
    return listing


def _write_unusable(listing: Listing, path: Path | None) -> None:
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if listing.broken or listing.untold:
            write_text(path, listing.unusable())
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


def _from_captions(folder: Path) -> list[tuple[Path, tuple[str, ...], tuple[Path, ...]]]:
    found: list[tuple[Path, tuple[str, ...], tuple[Path, ...]]] = []
    for file in sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        beside = file.with_suffix(".txt")
        lines = beside.read_text("utf-8", "replace").splitlines() if beside.is_file() else []
        found.append((file, tuple(line.strip() for line in lines if line.strip()), ()))
    return found


def _from_metadata(folder: Path) -> list[tuple[Path, tuple[str, ...], tuple[Path, ...]]]:
    found: list[tuple[Path, tuple[str, ...], tuple[Path, ...]]] = []
    for number, line in enumerate((folder / METADATA).read_bytes().splitlines(), start=1):
        if not line.strip():
            continue
        place = f"{folder / METADATA}, line {number}"
        try:
            entry = json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InvalidSettings(f"{place} is not UTF-8 ({error.reason}); save the file as UTF-8") from error
        except ValueError as error:
            raise InvalidSettings(f"{place} is not JSON ({error}); mend it") from error
        if not isinstance(entry, dict) or not isinstance(entry.get("file"), str) or set(entry) - _KEYS:
            raise InvalidSettings(f"{place}: expected an object with file, text and perhaps references")
        told, shown = entry.get("text", []), entry.get("references", [])
        texts = [told] if isinstance(told, str) else told
        if not _strings(texts) or not _strings(shown):
            raise InvalidSettings(f"{place}: text is a string or a list of strings, references a list of files")
        files = [_inside(folder, name, place) for name in (entry["file"], *shown)]
        found.append((files[0], tuple(text.strip() for text in texts if text.strip()), tuple(files[1:])))
    return found


def _strings(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _inside(folder: Path, name: str, place: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise InvalidSettings(f"{place}: {name!r} lies outside of the data folder; copy it there")
    return folder / name


def readable(path: Path) -> bool:
    """Whether a picture can be decoded, and so be learnt from."""
    return not isinstance(_size_of(path), str)


def _size_of(path: Path) -> tuple[int, int] | str:
    """(width, height) of a picture that can be decoded, else why it cannot."""
    try:
        with Image.open(path) as image:
            image.load()
            size = ImageOps.exif_transpose(image).size
    except FileNotFoundError:
        return "not there"
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, ValueError, SyntaxError) as error:
        return f"cannot be read ({type(error).__name__})"
    return size if min(size) >= 16 else f"is {size[0]}x{size[1]} px, smaller than 16"


def settle_folder_streams(
    streams: Sequence[Stream], broken: Broken, on_listing: Callable[[str], None], lists: Path | None = None
) -> tuple[tuple[Stream, ...], dict[str, list[FolderRow]]]:
    """Give every folder stream its rows: those with its number of references that fit its size best.

    Streams of the same folder are buckets of aspect and size. `on_listing` is told what each folder holds, and which
    streams get no row and are left out; the folder `lists` gets a file with all that cannot be used.
    Raises what `scan` raises, and `InvalidSettings` for rows that no stream can take, and, if `broken` says so, for
    streams that get no row.
    """
    folders = dict.fromkeys(stream.folder for stream in streams if stream.source is Source.FOLDER)
    given: dict[str, list[FolderRow]] = {stream.name: [] for stream in streams if stream.source is Source.FOLDER}
    for number, name in enumerate(folders, start=1):
        if name is None:
            raise InvalidSettings("a stream of source folder names no folder", field="data.streams")
        unusable = None if lists is None else lists / f"unusable-{number}.txt"
        listing = scan(Path(name).expanduser(), broken, unusable)
        on_listing(f"{name}: {listing.summary(unusable)}")
        for row in listing.rows:
            fitting = [s for s in streams if s.folder == name and s.references == len(row.references)]
            if not fitting:
                raise InvalidSettings(
                    f"{row.file} has {len(row.references)} references, and no stream of {name} takes so many",
                    field="data.streams",
                )
            given[_bucket(fitting, row.size).name].append(row)
    empty = [name for name, rows in given.items() if not rows]
    if empty and broken is Broken.REFUSE:
        raise InvalidSettings(
            f"no picture fits best into {_few(empty)}; leave such streams out, or set data.broken=skip",
            field="data.streams",
        )
    if empty:
        on_listing(f"streams left out, for no picture fits best into them: {len(empty)} ({_few(empty)})")
    settled = [
        replace(stream, rows=len(given[stream.name])) if stream.source is Source.FOLDER else stream
        for stream in streams
        if stream.name not in empty
    ]
    return tuple(settled), given


def keep_settled_rows(run: Path, streams: Sequence[Stream]) -> None:
    """Write beside the checkpoints of `run` how many rows each of its folder streams has. Raises `OutputFailed`."""
    rows = {stream.name: stream.rows for stream in streams if stream.source is Source.FOLDER}
    path = run / _ROWS
    try:
        if rows:
            run.mkdir(parents=True, exist_ok=True)
            write_text(path, json.dumps(rows))
        else:
            path.unlink(missing_ok=True)
    except OSError as error:
        raise not_written(path, error) from error


def with_settled_rows(run: Path, recipe: Recipe) -> Recipe:
    """`recipe` with the rows that its folder streams had in `run`, without those that were left out.

    Raises `InvalidSettings` if what tells so cannot be read.
    """
    path = run / _ROWS
    if not path.is_file():
        return recipe
    try:
        rows = {str(name): int(count) for name, count in json.loads(path.read_text("utf-8")).items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InvalidSettings(f"{path} does not tell numbers of rows ({error!r}); remove it") from error
    streams = tuple(
        replace(stream, rows=rows[stream.name]) if stream.source is Source.FOLDER else stream
        for stream in recipe.data.streams
        if stream.source is not Source.FOLDER or stream.name in rows
    )
    return replace(recipe, data=replace(recipe.data, streams=streams))


def rows_digest(rows: Sequence[FolderRow]) -> str:
    """The same for the same pictures, texts and references in the same order, wherever they lie. Raises `OSError`."""
    found = hashlib.sha256()
    for row in rows:
        for path in (row.file, *row.references):
            found.update(hashlib.sha256(path.read_bytes()).digest())
        found.update(json.dumps(row.texts).encode())
    return found.hexdigest()[:DIGEST_DIGITS]


def _bucket(streams: Sequence[Stream], size: tuple[int, int]) -> Stream:
    """Of the streams whose aspect is nearest the largest that a picture fills without being enlarged, or the smallest."""
    nearest = min(_aspect_distance(stream.size_px, size) for stream in streams)
    alike = [each for each in streams if math.isclose(_aspect_distance(each.size_px, size), nearest, abs_tol=1e-9)]
    filled = [each for each in alike if each.size_px[0] <= size[0] and each.size_px[1] <= size[1]]
    return max(filled, key=_area) if filled else min(alike, key=_area)


def _area(stream: Stream) -> int:
    return stream.size_px[0] * stream.size_px[1]


def _aspect_distance(size: tuple[int, int], other: tuple[int, int]) -> float:
    return abs(math.log(size[0] / size[1]) - math.log(other[0] / other[1]))


class FolderRows:
    """Prepares rows of folder streams, as `RenderedRows` does those of the world."""

    def __init__(
        self, encode: Callable[[Tensor], Tensor], encoder: CaptionEncoder, given: dict[str, list[FolderRow]]
    ) -> None:
        """`encode` turns uint8 pictures (B, H, W, 3) into latent tokens (B, L, C)."""
        self.encode, self.encoder, self.given = encode, encoder, given

    def __call__(self, stream: Stream, first: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(latents, references, ids) of rows `first` to `first` + `count` of `stream`."""
        rows = self.given[stream.name][first : first + count]
        latents = self.encode(torch.stack([read_picture(row.file, stream.size_px) for row in rows]))
        ids = np.zeros((count, stream.captions, self.encoder.length), np.uint16)
        for at, row in enumerate(rows):
            ids[at], _ = self.encoder([row.texts[number % len(row.texts)] for number in range(stream.captions)])
        if not stream.references:
            return latents.numpy(), np.zeros((count, 1, latents.shape[2]), np.float16), ids
        side = (stream.reference_px, stream.reference_px)
        shown = torch.stack([read_picture(path, side) for row in rows for path in row.references])
        return latents.numpy(), self.encode(shown).reshape(count, -1, latents.shape[2]).numpy(), ids


def read_picture(path: Path, size_px: tuple[int, int]) -> Tensor:
    """uint8 (H, W, 3): scaled to cover `size_px` (width, height), then cut around the centre."""
    with Image.open(path) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB")
    fitted = ImageOps.fit(upright, size_px, Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(fitted))


def _few(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(names[:_LISTED]) + rest
