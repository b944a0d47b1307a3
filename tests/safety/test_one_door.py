"""There is no other way out: whoever sees pixels that were not released, and what every way out hands over."""

import ast
import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

import licht
from licht.cli.main import run
from licht.core.request import ImageRequest, Preview, Progress
from licht.core.sizes import Size
from licht.generate import Model, Result
from licht.model.variants import Kind
from licht.safety import policy as door
from licht.safety import provenance
from licht.safety.policy import parse_policy
from licht.safety.registry import REGISTRY_FILE
from licht.service.worker.drawing import Drawn, Manner, ModelDrawer, PreviewDrawn
from tests.support import models

SOURCE = Path(licht.__file__).parent
# who may touch what has not been released, and why that does not let it out
RAW_RESULTS: Mapping[str, str] = MappingProxyType(
    {
        "core/request.py": "defines them",
        "engine/": "draws them",
        "generate.py": "hands them to the door",
    }
)
DRAWN_PICTURES: Mapping[str, str] = MappingProxyType(
    {
        "generate.py": "hands them to the door, and once more for another file format",
        "evaluation/": "measures them; its sheets are pictures for whoever trains, listed in the architecture tests",
        "service/worker/drawing.py": "shows them to the ranker, which answers numbers",
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = models.recipe(Kind.KLEIN, trained_sizes=[[64, 64]])
    return models.write_folder(tmp_path_factory.mktemp("models") / "tiny", made)


@pytest.fixture
def model(folder: Path, trust: Path) -> Model:
    return licht.load(folder, device="cpu")


def _outside(allowed: Mapping[str, str], found: Mapping[str, list[int]]) -> dict[str, list[int]]:
    return {name: lines for name, lines in found.items() if not name.startswith(tuple(allowed))}


def _used(wanted: str) -> dict[str, list[int]]:
    """File -> lines where a name, an attribute or an attribute of an attribute is used."""
    found: dict[str, list[int]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.id] if isinstance(node, ast.Name) else [node.attr] if isinstance(node, ast.Attribute) else []
            if isinstance(node, ast.ImportFrom):
                names = [alias.name for alias in node.names]
            if isinstance(node, ast.Attribute) and wanted.endswith(f".{node.attr}"):
                names = [wanted] if ast.unparse(node).endswith(f".{wanted}") else []
            if wanted in names:
                found.setdefault(path.relative_to(SOURCE).as_posix(), []).append(getattr(node, "lineno", 0))
    return found


def test_unreleased_results_stay_between_the_engine_and_the_door() -> None:
    raw, drawn = _used("ImageResult"), _used("drawn.picture")
    assert "generate.py" in raw
    assert "generate.py" in drawn
    assert _outside(RAW_RESULTS, raw) == {}
    assert _outside(DRAWN_PICTURES, drawn) == {}


def test_only_one_place_runs_the_engine() -> None:
    assert list(_used("engine.run")) == ["generate.py"]


def test_a_new_way_out_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cli").mkdir()
    (tmp_path / "cli" / "leak.py").write_text("def leak(result):\n    return result.drawn.picture.rgb\n")
    monkeypatch.setattr("tests.safety.test_one_door.SOURCE", tmp_path)
    assert _outside(DRAWN_PICTURES, _used("drawn.picture")) == {"cli/leak.py": [2]}


@pytest.fixture
def released(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Everything that the door has let out, in order."""
    seen: list[bytes] = []
    release = door.release

    def watched(*args: object, **options: object) -> door.Released:
        made = release(*args, **options)  # type: ignore[arg-type]
        seen.append(made.data)
        return made

    monkeypatch.setattr(door, "release", watched)
    return seen


def _is_signed(data: bytes, file_format: str, model: Model) -> bool:
    return provenance.read(data, file_format, model.policy.tools.anchors()).state == "trusted"


def test_python_gets_what_the_door_released(model: Model, released: list[bytes], tmp_path: Path) -> None:
    request = ImageRequest("a cat", (1, 2), size=Size(64, 64), steps=2, previews=True)
    out = [event for event in model.stream(request) if not isinstance(event, Progress)]
    previews = [event for event in out if isinstance(event, Preview)]
    results = [event for event in out if isinstance(event, Result)]
    assert (len(results), bool(previews)) == (2, True)
    files = [event.file if isinstance(event, Preview) else event.released.data for event in out]
    assert files == released
    assert all(_is_signed(data, "PNG", model) for data in files)
    for suffix, file_format in ((".jpg", "JPEG"), (".webp", "WEBP"), (".png", "PNG")):
        path = results[0].save(tmp_path / f"a{suffix}")
        assert path.read_bytes() in released
        assert _is_signed(path.read_bytes(), file_format, model)


def test_the_command_line_writes_what_the_door_released(
    folder: Path, trust: Path, released: list[bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "cat.webp"
    assert run(["generate", "a cat", "-m", str(folder), "--size", "64x64", "-n", "2", "-o", str(out), "--json"]) == 0
    paths = [Path(entry["path"]) for entry in json.loads(capsys.readouterr().out)["images"]]
    assert len(paths) == 2
    assert [path.read_bytes() for path in paths] == released
    assert len((trust / REGISTRY_FILE).read_text().splitlines()) == 2
    assert run(["verify", str(paths[0])]) == 0
    assert "Known: this installation released this picture" in capsys.readouterr().out


def test_the_worker_stores_what_the_door_released(model: Model, released: list[bytes]) -> None:
    request = ImageRequest("a cat", (1,), size=Size(64, 64), steps=2, previews=True)
    events = list(ModelDrawer(model).draw(request, Manner("JPEG")))
    files = [event.data for event in events if isinstance(event, Drawn | PreviewDrawn)]
    assert files == released
    assert _is_signed(files[-1], "JPEG", model)


def test_a_refused_result_leaves_nothing(
    folder: Path, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from licht.safety.hashes import pdq

    drawn = licht.load(folder, device="cpu", policy="off").generate("a cat", seed=1, size=(64, 64), steps=1)[0]
    (tmp_path / "list.txt").write_text(pdq(drawn.drawn.picture) + "\n")
    monkeypatch.setenv("LICHT_BLOCK_LISTS", str(tmp_path / "list.txt"))
    command = ["generate", "a cat", "-m", str(folder), "--size", "64x64", "--steps", "1", "--seed", "1"]
    assert run([*command, "-o", str(tmp_path / "cat.png")]) == 2
    assert "Content Moderated: known picture" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix in (".png", ".part")) == []
    assert not (trust / REGISTRY_FILE).exists()
    assert parse_policy("default").level is door.Level.DEFAULT
