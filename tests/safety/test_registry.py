import stat
from pathlib import Path

import pytest
from PIL import Image

from licht.core.errors import NotAvailable
from licht.core.request import Picture
from licht.safety.examine import examine
from licht.safety.policy import parse_policy, release, release_preview
from licht.safety.provenance import Making
from licht.safety.registry import REGISTRY_FILE, Registry
from tests.safety.test_watermark import scene, to_image, to_picture


def test_a_released_picture_is_known_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "made")
    assert registry.find(scene()) is None
    registry.add(scene(256, 256, 1), 7)
    registry.add(scene(256, 256, 2), None)
    found = registry.find(scene(256, 256, 1))
    assert found is not None
    assert (found.payload, found.distance) == (7, 0)
    small = to_picture(to_image(scene(256, 256, 2)).resize((120, 120)).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    near = registry.find(small)
    assert near is not None
    assert (near.payload, near.distance < 32, near.to_dict()["payload"]) == (None, True, None)
    assert registry.find(scene(256, 256, 3)) is None
    path = tmp_path / "made" / REGISTRY_FILE
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert all(len(line) < 110 for line in path.read_text().splitlines())


def test_lines_that_a_full_disk_has_cut_are_left_out(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.add(scene(64, 64), 1)
    with (tmp_path / REGISTRY_FILE).open("a") as file:
        file.write("1763683200 0000 12ab\n\n\xff\xfe")
    assert registry.find(scene(64, 64)) is not None


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NotAvailable, match="make room, or set LICHT_REGISTRY=off"):
        Registry(tmp_path / "file").add(Picture(64, 64, bytes(12288)), 1)


def test_the_door_keeps_it_and_previews_stay_out(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    policy = parse_policy("default")
    release_preview(scene(128, 128), policy, Making())
    assert not (trust / REGISTRY_FILE).exists()
    data = release(scene(), policy, "PNG", Making(payload=9)).data
    tools = policy.tools
    report = examine(data, tools.watermark, tools.anchors(), registry=tools.registry)
    assert (report["known"]["payload"], report["known"]["distance"]) == (f"{9:016x}", 0)
    monkeypatch.setenv("LICHT_REGISTRY", "off")
    release(scene(seed=4), parse_policy("default"))
    assert len((trust / REGISTRY_FILE).read_text().splitlines()) == 1


def test_a_mark_that_was_copied_is_seen(trust: Path) -> None:
    """The difference of one marked picture, put on another that was also released: payload and hash disagree."""
    policy = parse_policy("default")
    tools = policy.tools
    assert tools.registry is not None
    victim, other = scene(seed=1), scene(seed=2)
    marked = tools.watermark.embed(victim, 0xAAAA)
    tools.registry.add(victim, 0xAAAA)
    tools.registry.add(other, 0xBBBB)
    forged = bytes(
        min(255, max(0, base + new - old)) for base, new, old in zip(other.rgb, marked.rgb, victim.rgb, strict=True)
    )
    picture = Picture(other.width, other.height, forged)
    buffer = release(picture, parse_policy("off")).data
    report = examine(buffer, tools.watermark, None, registry=tools.registry)
    assert report["watermark"]["payload"] == f"{0xAAAA:016x}"  # the copy answers: a watermark alone proves no origin
    assert report["known"]["payload"] == f"{0xBBBB:016x}"
