"""BFL's own SDK against a running service with the built-in model, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.serving import Served

SCRIPT = """
import base64, json, sys
import requests
from blackforest import BFLClient
from blackforest.types.general.client_config import ClientConfig

url, key, picture = sys.argv[1:]
client = BFLClient(api_key=key, base_url=url)
wait = ClientConfig(sync=True, timeout=60, polling_interval=0.1, max_retries=900)
found = {}
for model, inputs in {
    "flux-dev": {"prompt": "a red sphere", "width": 256, "height": 256, "steps": 2, "seed": 7},
    "flux-pro-1.1": {"prompt": "a red sphere", "width": 256, "height": 256, "seed": 7, "output_format": "png"},
    "flux-kontext-pro": {"prompt": "make it blue", "input_image": picture, "seed": 7},
}.items():
    told = client.generate(model, inputs, wait)
    told = told if isinstance(told, dict) else told.model_dump()
    result = told.get("result") or told
    found[model] = [result["seed"], requests.get(result["sample"], timeout=10).headers["content-type"]]
submitted = client.generate("flux-dev", {"prompt": "a red sphere", "width": 256, "height": 256, "steps": 1})
found["submitted"] = sorted(name for name, value in dict(submitted).items() if value)
try:
    BFLClient(api_key="wrong", base_url=url).generate("flux-dev", {"prompt": "a"})
except Exception as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


@pytest.mark.slow
def test_generate_poll_and_fetch(live: Served, blackforest: Path, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    picture.write_bytes((Path(__file__).parents[3] / "docs" / "images" / "demo.png").read_bytes())
    environment = {**os.environ, "PYTHONPATH": str(blackforest), "NO_PROXY": "127.0.0.1"}
    command = [sys.executable, "-c", SCRIPT, live.url, live.key, str(picture)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["flux-dev"] == [7, "image/jpeg"]
    assert found["flux-pro-1.1"] == [7, "image/png"]
    assert found["flux-kontext-pro"] == [7, "image/png"]
    assert {"id", "polling_url"} <= set(found["submitted"])
    assert found["error"] == "API request failed: Invalid API key format"
