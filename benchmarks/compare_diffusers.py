"""Cold start to finished file: `licht generate` against the shortest diffusers script that does the same.

Both draw the same prompt with the built-in model, seed, steps and guidance, in fresh processes, in turn; the pictures
are compared as well. The last line printed is JSON. Run it on an otherwise idle machine:

    .venv/bin/python benchmarks/compare_diffusers.py --runs 5
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from licht.checkpoint.assets import built_in

PROMPT = "a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left"
SEED = 1
SCRIPT = """
import torch
from diffusers import Flux2KleinPipeline
pipe = Flux2KleinPipeline.from_pretrained({folder!r}, torch_dtype=torch.float32)
pipe.set_progress_bar_config(disable=True)
pipe(prompt={prompt!r}, height=128, width=128, guidance_scale={guidance}, num_inference_steps={steps},
     generator=torch.Generator("cpu").manual_seed({seed}), max_sequence_length={length},
     text_encoder_out_layers={layers}).images[0].save({path!r})
"""


def commands(folder: Path, ours: Path, theirs: Path) -> tuple[list[str], list[str]]:
    """The two command lines, with every setting of the model's own description spelled out for diffusers."""
    description = json.loads((folder / "licht.json").read_text())
    steps, guidance = description["default_steps"], description["default_guidance"] or 1.0
    script = SCRIPT.format(
        folder=str(folder),
        prompt=PROMPT,
        guidance=guidance,
        steps=steps,
        seed=SEED,
        length=description["text_length"],
        layers=tuple(description["text_layers"]),
        path=str(theirs),
    )
    licht = [sys.executable, "-m", "licht", "generate", PROMPT, "--seed", str(SEED), "--overwrite", "-o", str(ours)]
    return licht, [sys.executable, "-c", script]


def wall_s(command: list[str]) -> float:
    """Seconds from start to exit of one process."""
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


def compare(runs: int, folder: Path) -> dict[str, object]:
    """Time both in turn and compare their pictures."""
    with tempfile.TemporaryDirectory() as temporary:
        ours, theirs = Path(temporary, "licht.png"), Path(temporary, "diffusers.png")
        licht, diffusers = commands(folder, ours, theirs)
        wall_s(licht), wall_s(diffusers)  # a first run of each fills the file cache
        pairs = [(wall_s(licht), wall_s(diffusers)) for _ in range(runs)]
        difference = np.abs(np.asarray(Image.open(ours), int) - np.asarray(Image.open(theirs), int)).max()
    return {
        "benchmark": "compare_diffusers",
        "runs": runs,
        "licht_s": round(statistics.median(a for a, _ in pairs), 3),
        "diffusers_s": round(statistics.median(b for _, b in pairs), 3),
        "ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "ratio_max": round(max(a / b for a, b in pairs), 3),
        "largest_pixel_difference": int(difference),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--model", default="nano", help="a built-in model")
    options = parser.parse_args()
    print(json.dumps(compare(options.runs, built_in()[options.model])))
