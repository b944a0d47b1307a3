import json
import sys

import pytest

from licht.cli.main import run as command


@pytest.fixture
def no_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """RapidOCR cannot be imported."""
    monkeypatch.setitem(sys.modules, "rapidocr_onnxruntime", None)


@pytest.mark.usefixtures("no_reader")
def test_edits_are_measured_without_a_reader_and_it_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["eval", "edit", "--n", "1", "--steps", "1", "--json"]) == 0
    told = capsys.readouterr()
    rows = json.loads(told.out)["rows"]
    assert rows["edit_done_ceiling"]["value"] is not None
    assert rows["edit_rest_psnr_ceiling"]["n"] == 1
    assert "nearer to the right picture" in told.err
    assert "lichtung[eval]" in told.err


@pytest.mark.usefixtures("no_reader")
def test_words_are_refused_without_a_reader(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["eval", "text", "--n", "1"]) == 2
    assert "pip install 'lichtung[eval]'" in capsys.readouterr().err
