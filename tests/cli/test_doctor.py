"""`licht doctor`, in this process."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from licht.checkpoint import catalog
from licht.checkpoint.assets import built_in
from licht.cli.main import run
from licht.evaluation import compare
from licht.evaluation.measured import Measured


def test_a_sound_installation_draws(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["problems"] == []
    assert report["drawing"]["model"] == "nano"
    assert report["drawing"]["size"] == [64, 64]
    assert report["drawing"]["steps"] == 8
    assert report["versions"]["torch"]
    assert report["devices"][0]["device"] == "cpu"
    assert report["models"]["built_in"] == [*built_in()]


def test_it_says_where_models_are_looked_for(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("LICHT_MODELS", str(tmp_path))
    (tmp_path / "klein-4b").mkdir()
    assert run(["doctor"]) == 0
    words = " ".join(capsys.readouterr().out.split())
    assert "everything works" in words
    assert "models in it klein-4b" in words
    assert "nano drew 64x64 in 8 steps on cpu in float32" in words


def test_a_broken_built_in_model_is_a_problem(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(catalog, "built_in", lambda: {"nano": tmp_path})
    assert run(["doctor", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["drawing"] is None
    assert len(report["problems"]) == 1
    assert "not a model folder" in report["problems"][0]
    assert run(["doctor"]) == 1
    assert "problem: the built-in model does not draw" in capsys.readouterr().out


def test_a_bad_device_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--golden", "nano", "--device", "abacus"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "abacus" in captured.err


def test_an_unknown_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--golden", "no-such-model"]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "no-such-model" in captured.err


def test_without_the_reference_it_says_how_to_install_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, package=None: None if name == "diffusers" else find(name, package)
    )
    assert run(["doctor", "--golden", "nano"]) == 2
    captured = capsys.readouterr()
    assert "comparing needs diffusers" in captured.err
    assert "pip install 'lichtung[golden]'" in captured.err


def _rows(*errors: float) -> Iterator[Measured]:
    return (Measured("nano", "odd", "velocity", error, 1e-5) for error in errors)


@pytest.mark.parametrize(
    ("errors", "code", "last"),
    [((1e-6, 9e-6), 0, 9e-6), ((1e-6, 2e-5), 1, 2e-5), ((float("inf"),), 1, None), ((float("nan"),), 1, None)],
)
def test_the_exit_code_says_whether_every_difference_is_allowed(
    errors: tuple[float, ...],
    code: int,
    last: float | None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(compare, "compare_model", lambda *_: _rows(*errors))
    assert run(["doctor", "--golden", "nano", "--json"]) == code
    report = json.loads(capsys.readouterr().out)
    assert report["faithful"] is (code == 0)
    assert len(report["rows"]) == len(errors)
    assert report["rows"][-1]["error"] == last
    assert [file["known_as"] for file in report["files"]] == [
        "nano, transformer (1 of 2)",
        "nano, transformer (2 of 2)",
        "nano, autoencoder",
        "nano, text encoder",
    ]
    assert set(report["versions"]) == {"diffusers", "transformers"}

    assert run(["doctor", "--golden", "nano"]) == code
    shown = capsys.readouterr().out
    assert ("OUTSIDE" in shown) is (code == 1)
    assert ("nano: faithful" in shown) is (code == 0)
    assert report["files"][0]["sha256"] in shown


def test_what_the_reference_cannot_read_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--golden", "nano-base", "--device", "cpu", "--dtype", "float32"]) == 2
    said = capsys.readouterr().err
    assert "is stored as q4; compare the model that it was made of" in said
    assert said.count("\n") == 1


@pytest.mark.slow
def test_the_built_in_model_is_faithful(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["doctor", "--golden", "nano", "--json", "--device", "cpu", "--dtype", "float32"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["faithful"] is True
    assert (report["model"], report["device"], report["dtype"]) == ("nano", "cpu", "float32")
    components = {row["component"] for row in report["rows"]}
    assert {
        "template",
        "token ids",
        "text embeddings",
        "noise levels",
        "velocity",
        "decoded image",
        "pixels",
    } <= components
    assert all(row["within"] for row in report["rows"])
