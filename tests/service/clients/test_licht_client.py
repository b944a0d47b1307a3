"""`licht.Client`, and the lines of README and docs/serving.md, against a running service with the built-in model."""

import io
import json
import subprocess
import time

import httpx
import pytest
from PIL import Image

import licht
from tests.service.serving import Served
from tests.support.processes import ROOT


def test_the_same_call_as_on_this_machine(live: Served) -> None:
    with licht.Client(live.url, key=live.key) as client:
        result = client.generate("a red sphere", size=(128, 128), seed=3, steps=2)[0]
    assert (result.width, result.height, result.seed) == (128, 128, 3)
    local = licht.load("nano", policy="off").generate("a red sphere", size=(128, 128), seed=3, steps=2)[0]
    far = Image.frombytes("RGB", (128, 128), local.drawn.picture.rgb).convert("L")
    near = result.image.convert("L")
    # the service marks its pictures and sends JPEG; the picture is the same
    differences = [abs(a - b) for a, b in zip(far.tobytes(), near.tobytes(), strict=True)]
    assert sum(differences) / len(differences) < 4


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_the_curl_lines_of_the_documentation(live: Served, page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert "localhost:8000/v1/flux-2-pro" in text
    body = text.partition("-d '")[2].partition("'")[0]
    headers = ["-H", f"x-key: {live.key}", "-H", "content-type: application/json"]
    command = ["curl", "-sS", "--noproxy", "*", f"{live.url}/v1/flux-2-pro", *headers, "-d", body]
    told = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=20).stdout)
    end = time.monotonic() + 60
    while True:
        polled = httpx.get(told["polling_url"], trust_env=False).json()
        if polled["status"] != "Pending":
            break
        assert time.monotonic() < end
        time.sleep(0.1)
    assert (polled["status"], polled["details"]["model"]) == ("Ready", "nano")
    data = httpx.get(polled["result"]["sample"], trust_env=False).content
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("JPEG", (128, 128))
