"""`licht verify`, `licht provenance` and `licht screen`, run in this process."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from licht.cli.main import run
from licht.recipes.nano import nano_smoke
from licht.safety.policy import parse_policy, release
from licht.safety.provenance import Making
from licht.training.config import DataConfig, Source, Stream
from tests.safety.test_watermark import scene
from tests.support.pictures import write_image

PROMPTS = Path(__file__).parent / "data" / "prompts.jsonl"


def test_verify_knows_its_own_picture(trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(release(scene(), parse_policy("default"), "PNG", Making("nano", "sha256:1", payload=7)).data)
    assert run(["verify", str(path)]) == 0
    said = capsys.readouterr().out
    assert "intact, signed by Licht, whom you trust" in said
    assert "trainedAlgorithmicMedia, by nano" in said
    assert "made by this installation" in said
    assert run(["verify", str(path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["c2pa"]["state"], report["watermark"]["payload"], report["agrees"]) == ("trusted", f"{7:016x}", True)


def test_verify_finds_the_mark_where_the_credentials_are_gone(
    trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = release(scene(), parse_policy("default"))
    data.picture().save(tmp_path / "b.jpg", quality=80)
    assert run(["verify", str(tmp_path / "b.jpg"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["c2pa"]["state"], report["watermark"]["detected"]) == ("none", True)


def test_verify_says_when_a_file_was_altered(trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(release(scene(128, 128), parse_policy("default")).data + b"appended")
    assert run(["verify", str(path)]) == 0
    assert "BROKEN" in capsys.readouterr().out


def test_verify_makes_no_keys(trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["verify", str(write_image(tmp_path / "a.png"))]) == 0
    said = capsys.readouterr().out
    assert "Content credentials: none" in said
    assert "has no key yet" in said
    assert not trust.exists()


@pytest.mark.parametrize("content", [b"", b"\x89PNG\r\n\x1a\n", b"<html>", b"RIFF\0\0\0\0WEBP"])
def test_verify_refuses_what_is_no_picture(tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.png").write_bytes(content)
    assert run(["verify", str(tmp_path / "a.png")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


def test_provenance_init_and_show(trust: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["provenance", "init", "--name", "Somebody"]) == 0
    assert capsys.readouterr().out.strip() == str(trust)
    assert run(["provenance", "init"]) == 2
    assert "holds a signing key already" in capsys.readouterr().err
    assert run(["provenance", "show", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["signer"], report["algorithm"], report["trusted_by_others"]) == (
        "CN=Somebody,O=Somebody",
        "es256",
        False,
    )


def test_screen_names_what_it_refuses(
    trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_image(folder / "a.png")
    (folder / "a.txt").write_text("a red ball")
    (folder / "b.txt").write_text("a nude woman")
    (folder / "c.png").write_bytes(b"no picture")
    lines = [{"file": "a.png", "text": ["a red ball"]}, {"file": "a.png", "text": ["a ball", "a nude woman"]}]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + "not JSON\n")
    assert run(["screen", str(folder), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["screened"] == 5
    assert [Path(entry["path"]).name for entry in report["refused"]] == ["b.txt", "c.png", "metadata.jsonl"]
    (folder / "metadata.jsonl").unlink()
    (folder / "b.txt").unlink()
    (folder / "c.png").unlink()
    assert run(["screen", str(folder)]) == 0
    assert run(["screen", str(tmp_path / "absent")]) == 2


def test_training_does_not_begin_on_what_the_door_refuses(
    trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    write_image(folder / "a.png")
    (folder / "a.txt").write_text("a nude woman")
    stream = Stream("own", Source.FOLDER, (), 0, 1.0, size_px=(64, 64), captions=1, folder=str(folder))
    recipe = replace(nano_smoke(), data=DataConfig(streams=(stream,)))
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    command = ["train", str(tmp_path / "recipe.json"), "--run", str(tmp_path / "run"), "--minutes", "0.01"]
    assert run(command) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "holds 1 file that the filters refuse (a.txt: Request Moderated: sexual" in said
    assert not (tmp_path / "run").exists()
    assert not (trust / "signing.key").exists()


def test_a_picture_that_only_training_could_open_is_refused(
    trust: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue")]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:])
    (folder / "a.txt").write_text("a red ball")
    stream = Stream("own", Source.FOLDER, (), 0, 1.0, size_px=(64, 64), captions=1, folder=str(folder))
    recipe = replace(nano_smoke(), data=DataConfig(streams=(stream,)))
    (tmp_path / "recipe.json").write_text(recipe.as_json(), "utf-8")
    assert run(["train", str(tmp_path / "recipe.json"), "--run", str(tmp_path / "run"), "--minutes", "0.01"]) == 2
    assert "holds 1 file that the filters refuse (a.webp: " in " ".join(capsys.readouterr().err.split())


def test_screen_measures_the_prompt_filter(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["screen", "--evaluate", str(PROMPTS), "--json"]) == 0
    table = json.loads(capsys.readouterr().out)
    assert sum(row["prompts"] for row in table["categories"].values()) >= 400
    assert run(["screen", "--evaluate", str(PROMPTS)]) == 0
    assert "self-harm" in capsys.readouterr().out


def test_a_saved_picture_keeps_its_mark_in_every_format(trust: Path, tmp_path: Path) -> None:
    policy = parse_policy("default")
    for name, file_format in (("a.png", "PNG"), ("a.jpg", "JPEG"), ("a.webp", "WEBP")):
        (tmp_path / name).write_bytes(release(scene(), policy, file_format, Making(payload=5)).data)
        opened = Image.open(tmp_path / name)
        assert opened.format == file_format
        assert opened.size == (512, 512)
