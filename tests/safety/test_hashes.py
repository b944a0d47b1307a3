import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from licht.core.errors import InvalidSettings
from licht.core.request import Picture
from licht.safety.hashes import MATCH_DISTANCE, distance, eight, from_hex, pdq, read_block_list, to_hex


def scene(seed: int = 0, side: int = 256) -> Image.Image:
    """Soft coloured blobs."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
    return small.resize((side, side), Image.Resampling.BICUBIC)


def picture(image: Image.Image) -> Picture:
    return Picture(image.width, image.height, image.convert("RGB").tobytes())


def jpeg(image: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=40)
    return Image.open(buffer)


@pytest.mark.parametrize(
    ("seed", "expected"),
    [
        (0, "0002c5b859f641f64271f2c6b264cd9b4d9b0d3dbd8efe49b6250a570d9fd638"),
        (1, "b09b46f9b2c56c97b26375a181f86e173e0709de999cd3684c1a7a463e451a4f"),
        (2, "88c39da60cc6d275b1e6d9ca2277dd889d888e354e19b5aac279c27a85bdc5b8"),
    ],
)
def test_it_is_pdq(seed: int, expected: str) -> None:
    """What the reference implementation (pdqhash 0.2.8) gives for the same pixels."""
    assert distance(pdq(picture(scene(seed))), expected) == 0


def test_hexadecimal_there_and_back() -> None:
    text = pdq(picture(scene()))
    assert to_hex(from_hex(text)) == text
    assert len(text) == 64


@pytest.mark.parametrize("change", [jpeg, lambda i: i.resize((120, 120)), lambda i: i.point(lambda v: v * 0.8 + 10)])
def test_the_same_picture_stays_near(change: object) -> None:
    assert distance(pdq(picture(scene())), pdq(picture(change(scene())))) <= MATCH_DISTANCE  # type: ignore[operator]


def test_different_pictures_are_far_apart() -> None:
    hashes = [pdq(picture(scene(seed))) for seed in range(30)]
    assert min(distance(a, b) for i, a in enumerate(hashes) for b in hashes[:i]) > 2 * MATCH_DISTANCE


@pytest.mark.parametrize("turn", list(Image.Transpose))
def test_all_orientations_match(turn: Image.Transpose, tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text(f"# known\n{pdq(picture(scene()))}, a comment\n\n{pdq(picture(scene(5)))}\n")
    blocked = read_block_list(path)
    assert blocked.match(picture(jpeg(scene().transpose(turn)))) is not None
    assert blocked.match(picture(scene(9))) is None
    assert eight(picture(scene())).shape == (8, 256)


def test_bad_lines_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("hash,source\n" + "0" * 64 + "\nnonsense\n" + "0" * 63 + "\n# fine\n")
    with pytest.raises(InvalidSettings, match=r"has bad lines \(3, 4\); a hash is 64 hexadecimal digits"):
        read_block_list(path)
    with pytest.raises(InvalidSettings, match="cannot be read as text"):
        read_block_list(tmp_path / "absent")


def test_an_empty_list_matches_nothing(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("# none yet\n")
    assert read_block_list(path).match(picture(scene())) is None


@pytest.mark.parametrize("size", [(1, 1), (64, 1), (3, 700), (2000, 90)])
def test_any_size_has_a_hash(size: tuple[int, int]) -> None:
    assert len(pdq(Picture(*size, bytes(3 * size[0] * size[1])))) == 64
