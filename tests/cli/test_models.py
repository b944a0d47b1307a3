import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest

from licht.checkpoint.assets import built_in
from licht.model.variants import VARIANTS
from tests.cli.conftest import Licht
from tests.support.hub import REVISION, Hub, serving
from tests.support.pictures import write_image

KLEIN = str(VARIANTS["klein-4b"].repository)
KV = str(VARIANTS["klein-9b-kv"].repository)


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "models"
    monkeypatch.setenv("LICHT_MODELS", str(folder))
    return folder


@pytest.fixture
def hub(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub with one model that has the folders of the official ones, and a large file beside them."""
    made = Hub.of_folder(KLEIN, tiny)
    made.files |= {"model_index.json": b"{}", "flux-2-klein-4b.safetensors": bytes(10**6), "sample.png": b"x"}
    with serving(made) as served:
        reachable(monkeypatch, served.url)
        yield served


def reachable(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Tests are offline by default, and the library reads its settings once."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setenv("HF_ENDPOINT", url)


def listed(licht: Licht) -> dict[str, dict[str, object]]:
    outcome = licht("models", "--json")
    assert outcome.code == 0
    return {row["name"]: row for row in json.loads(outcome.out)["models"]}


def test_every_model_is_listed_with_licence_size_source_and_presence(licht: Licht, shelf: Path) -> None:
    rows = listed(licht)
    assert [*rows][: len(built_in()) + 1] == [*built_in(), "dev"]
    assert set(VARIANTS) < set(rows)
    assert rows["klein-4b"] == {
        "name": "klein-4b",
        "licence": "Apache-2.0",
        "size_bytes": rows["klein-4b"]["size_bytes"],
        "presence": "not here",
        "source": "black-forest-labs/FLUX.2-klein-4B",
    }
    assert 15e9 < rows["klein-4b"]["size_bytes"] < 17e9  # type: ignore[operator]
    plain = licht("models").out
    for row in rows.values():
        assert str(row["source"]) in plain


def test_a_model_is_fetched_whole_and_nothing_else(licht: Licht, hub: Hub, tiny: Path, shelf: Path) -> None:
    outcome = licht("models", "get", "klein-4b")
    assert (outcome.code, outcome.out) == (0, f"{shelf / 'klein-4b'}\n")
    for said in (KLEIN, "Apache-2.0", "apache-2.0", "gated       no", "free disk", " MB still to fetch"):
        assert said in outcome.err
    fetched = {
        path.relative_to(shelf / "klein-4b").as_posix() for path in (shelf / "klein-4b").rglob("*") if path.is_file()
    }
    expected = {name for name in hub.files if "/" in name} | {"model_index.json", "licht-source.json"}
    assert fetched == expected
    for name in fetched - {"licht-source.json"}:
        assert (shelf / "klein-4b" / name).read_bytes() == hub.files[name]
    source = json.loads((shelf / "klein-4b" / "licht-source.json").read_text())
    assert (source["repository"], source["revision"], source["licence"]) == (KLEIN, REVISION, "Apache-2.0")
    assert [path.name for path in shelf.iterdir()] == ["klein-4b"]
    assert listed(licht)["klein-4b"]["presence"] == "here"
    assert "exists; remove it" in licht("models", "get", "flux.2-klein-4b").err


def test_a_dry_run_fetches_nothing(licht: Licht, hub: Hub, shelf: Path) -> None:
    report = json.loads(licht("models", "get", "klein-4b", "--dry-run", "--json").out)
    wanted = [name for name in hub.files if "/" in name or name == "model_index.json"]
    assert report["size_bytes"] == report["missing_bytes"] == sum(len(hub.files[name]) for name in wanted)
    assert (report["repository"], report["gated"], report["path"]) == (KLEIN, False, None)
    assert not shelf.exists()
    assert hub.fetched() == []


def test_a_broken_download_is_continued_where_it_broke(
    licht: Licht, hub: Hub, shelf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    largest = max((name for name in hub.files if "/" in name), key=lambda name: len(hub.files[name]))
    before = sum(
        len(data) for name, data in hub.files.items() if name < largest and ("/" in name or name == "model_index.json")
    )
    hub.files = dict(sorted(hub.files.items()))
    hub.budget_bytes = before + len(hub.files[largest]) // 2
    outcome = licht("models", "get", "klein-4b")
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.splitlines()[-1].startswith("error: ")
    assert "what has arrived is kept" in outcome.err.splitlines()[-1]
    assert not (shelf / "klein-4b").exists()
    complete = {name for name, _ in hub.fetched() if name != largest}
    hub.budget_bytes = None
    hub.asked.clear()
    assert licht("models", "get", "klein-4b").code == 0
    again = dict(hub.fetched())
    assert complete.isdisjoint(again)
    assert again[largest] == f"bytes={len(hub.files[largest]) // 2 // 10_000 * 10_000}-"
    assert (shelf / "klein-4b" / largest).read_bytes() == hub.files[largest]
    assert not list(shelf.rglob("*.part"))


def test_a_download_of_another_revision_is_not_mixed_into_this_one(licht: Licht, hub: Hub, shelf: Path) -> None:
    begun, large = shelf / ".klein-4b.part", "transformer/diffusion_pytorch_model.safetensors"
    small = next(name for name in hub.files if name.startswith("tokenizer/"))
    stale = {small: bytes(len(hub.files[small])), f"{small}.part": b"x", "vae/old.safetensors": b"x"}
    for name, data in {**stale, large: hub.files[large], "licht-source.json": b'{"revision": "older"}'}.items():
        (begun / name).parent.mkdir(parents=True, exist_ok=True)
        (begun / name).write_bytes(data)
    assert licht("models", "get", "klein-4b").code == 0
    fetched = dict(hub.fetched())
    assert large not in fetched
    assert fetched[small] is None
    assert (shelf / "klein-4b" / small).read_bytes() == hub.files[small]
    assert not (shelf / "klein-4b" / "vae" / "old.safetensors").exists()


def test_a_file_that_arrives_damaged_is_not_kept(licht: Licht, hub: Hub, shelf: Path) -> None:
    name = next(name for name in hub.files if name.startswith("vae/") and name.endswith(".safetensors"))
    part = shelf / ".klein-4b.part" / f"{name}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"something else")
    assert (
        f"{name} has arrived damaged and was removed; run the same command again"
        in licht("models", "get", "klein-4b").err
    )
    assert not part.exists()
    assert licht("models", "get", "klein-4b").code == 0


def test_a_non_commercial_licence_must_be_acknowledged(licht: Licht, hub: Hub, shelf: Path) -> None:
    hub.repository = KV
    outcome = licht("models", "get", "klein-9b-kv")
    assert outcome.code == 2
    assert "is under the licence FLUX Non-Commercial, which allows no commercial use" in outcome.err
    assert "--accept-licence" in outcome.err
    assert hub.fetched() == []
    assert licht("models", "get", "klein-9b-kv", "--accept-licence").code == 0


def test_a_gated_repository_says_what_to_do(licht: Licht, hub: Hub) -> None:
    hub.gated = True
    assert json.loads(licht("models", "get", "klein-4b", "--dry-run", "--json").out)["gated"] is True
    outcome = licht("models", "get", "klein-4b")
    assert outcome.code == 2
    assert "is gated: accept its terms at" in outcome.err
    assert "HF_TOKEN" in outcome.err


def test_a_full_disk_is_seen_before_anything_is_fetched(
    licht: Licht, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10**9, 10**9, 1000))
    outcome = licht("models", "get", "klein-4b")
    assert outcome.code == 2
    assert "make room, or choose another disk with LICHT_MODELS" in outcome.err
    assert hub.fetched() == []


def test_a_hub_that_is_not_there_or_answers_garbage_is_one_line(
    licht: Licht, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "there is no official model 'mine'" in licht("models", "get", "mine").error
    hub.repository = "somebody/else"
    assert "HF_TOKEN" in licht("models", "get", "klein-4b").error
    hub.garbage = True
    assert "did not deliver" in licht("models", "get", "klein-4b").error
    reachable(monkeypatch, "http://127.0.0.1:9")
    outcome = licht("models", "get", "klein-4b", "--json")
    assert outcome.code == 2
    assert json.loads(outcome.out)["error"]["code"] == "endpoint_failed"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in licht("models", "get", "klein-4b").error


def test_a_folder_gets_a_name_without_being_copied(licht: Licht, tiny: Path, shelf: Path) -> None:
    outcome = licht("models", "add", "mine", tiny)
    assert outcome.code == 0
    assert outcome.out.startswith(f"mine is {tiny} (klein, ")
    assert [path.name for path in shelf.iterdir()] == ["mine.registered.json"]
    assert listed(licht)["mine"]["presence"] == "registered"
    report = json.loads(licht("generate", "x", "-m", "mine", "--policy", "off", "--device", "cpu", "--json").out)
    assert report["model"] == "mine"
    assert "there is a model mine already" in licht("models", "add", "mine", tiny).error
    assert licht("models", "remove", "mine").code == 0
    assert tiny.is_dir()
    assert "mine is not a registered model" in licht("models", "remove", "mine").error


def test_a_single_file_is_registered_with_its_parts(licht: Licht, tiny: Path, tmp_path: Path) -> None:
    file = next((tiny / "transformer").glob("*.safetensors"))
    moved = tmp_path / "elsewhere" / "model.safetensors"
    moved.parent.mkdir()
    shutil.copy(file, moved)
    shutil.copy(tiny / "licht.json", moved.parent)
    parts = ("--vae", tiny / "vae", "--text-encoder", tiny / "text_encoder")
    assert "no autoencoder beside" in licht("models", "add", "single", moved).error
    assert licht("models", "add", "single", moved, *parts).code == 0
    assert listed(licht)["single"]["source"] == str(moved)


def test_what_cannot_be_registered_is_refused(licht: Licht, tiny: Path, tmp_path: Path, shelf: Path) -> None:
    assert "is built in; choose another name" in licht("models", "add", "nano", tiny).error
    assert "is no name for a model" in licht("models", "add", "My Model", tiny).error
    assert "has no transformer/" in licht("models", "add", "mine", tmp_path).error
    picture = write_image(tmp_path / "a.png")
    assert licht("models", "add", "mine", picture).code == 2
    gone = Path(shutil.copytree(tiny, tmp_path / "gone"))
    assert licht("models", "add", "mine", gone).code == 0
    shutil.rmtree(gone)
    assert "which is not there; put it back" in licht("generate", "x", "-m", "mine").error
    assert listed(licht)["mine"]["presence"] == "MISSING"
    (shelf / "mine.registered.json").write_text("{}")
    assert "is no entry of a registered model" in licht("generate", "x", "-m", "mine").error
