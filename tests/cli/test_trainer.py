"""Training where little is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

from licht.cli.trainer import main
from licht.training.tokenizer import save_tokenizer, train_tokenizer
from tests.training.runs import CAPTIONS, TINY, tiny_flow

ALONE = """
import sys
refused = {"pydantic", "typer", "rich", "platformdirs", "httpx", "fastapi", "sqlalchemy", "huggingface_hub",
           "transformers", "diffusers", "jinja2", "click", "yaml", "cryptography", "c2pa", "alembic", "mcp"}

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"{name} is not on this machine", name=name)

sys.meta_path.insert(0, Refuse())
from licht.cli.trainer import main
raise SystemExit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_model_trains_with_five_libraries(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(tiny_flow(tmp_path, steps=2).as_json(), "utf-8")
    run = tmp_path / "run"
    save_tokenizer(train_tokenizer(CAPTIONS, TINY.vocab_size), run / "tokenizer")
    command = [sys.executable, "-c", ALONE, str(tmp_path / "recipe.json"), "--run", str(run), "--device", "cpu"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run)
    assert "step 2 of 2" in done.stderr
    assert (run / "step-00000002" / "state.safetensors").is_file()


def test_a_mistake_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["nano_smoke", "--run", str(tmp_path), "--set", "optim.stepps=2"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "stepps" in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
