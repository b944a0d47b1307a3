"""The autoencoder of the official widths, whole and in bands: time, memory and difference.

Every measurement is a fresh process with one thread: processor time of the second of two runs (the first of a smaller
picture), and how far resident memory rose above what the weights take. The last line printed is JSON:

    .venv/bin/python benchmarks/autoencoder_bands.py --sides 1024 1440 2048
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from licht.model.autoencoder import Autoencoder
from licht.model.banded import decode_banded, encode_banded
from licht.model.variants import AUTOENCODER
from licht.quant.pages import trim


def resident_bytes(name: str) -> int:
    """`VmRSS` for what is resident now, `VmHWM` for the most since the mark was last moved."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def built(dtype: torch.dtype) -> Autoencoder:
    """Random weights, laid out as they are after loading."""
    torch.manual_seed(0)
    autoencoder = Autoencoder(AUTOENCODER).to(dtype).eval().requires_grad_(False)
    return autoencoder.to(memory_format=torch.channels_last) if dtype is torch.bfloat16 else autoencoder


def given(what: str, side: int, dtype: torch.dtype) -> Tensor:
    """Latents or a picture."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, 128, side // 16, side // 16) if what == "decode" else (1, 3, side, side)
    return torch.randn(shape, generator=generator).to(dtype)


def work(autoencoder: Autoencoder, what: str, banded: bool, x: Tensor) -> Tensor:
    """One of the four ways."""
    if what == "decode":
        return decode_banded(autoencoder, x) if banded else autoencoder.decode(x)
    return encode_banded(autoencoder, x) if banded else autoencoder.encode(x)


@torch.inference_mode()
def measure(what: str, side: int, banded: bool) -> dict[str, float]:
    """In this process."""
    torch.set_num_threads(1)
    autoencoder = built(torch.bfloat16)
    work(autoencoder, what, banded, given(what, 256, torch.bfloat16))
    x = given(what, side, torch.bfloat16)
    trim()
    before = resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    started = time.thread_time()
    work(autoencoder, what, banded, x)
    spent = time.thread_time() - started
    return {"processor_s": round(spent, 2), "memory_bytes": resident_bytes("VmHWM") - before}


@torch.inference_mode()
def difference(what: str, side: int) -> dict[str, float]:
    """The largest difference of the two ways, relative to the largest value, in float32."""
    torch.set_num_threads(1)
    autoencoder, x = built(torch.float32), given(what, side, torch.float32)
    whole, bands = work(autoencoder, what, False, x), work(autoencoder, what, True, x)
    return {"difference": float((whole - bands).abs().max() / whole.abs().max())}


def main() -> None:
    """Measure every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[1440, 2048])
    parser.add_argument("--difference", type=int, help="compare the results at this side instead")
    parser.add_argument("--what", nargs="+", default=["decode", "encode"], choices=["decode", "encode"])
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, side, way = options.child.split(",")
        print(json.dumps(difference(what, int(side)) if way == "both" else measure(what, int(side), way == "bands")))
        return

    def run(*case: object) -> dict[str, Any]:
        command = [sys.executable, __file__, "--child", ",".join(str(part) for part in case)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        print(*case, json.dumps(found), flush=True)
        return found

    found: dict[str, Any] = {"benchmark": "autoencoder_bands"}
    for what in options.what:
        if options.difference:
            found[f"{what} {options.difference}"] = run(what, options.difference, "both")
            continue
        for side in options.sides:
            whole, bands = run(what, side, "whole"), run(what, side, "bands")
            found[f"{what} {side}"] = {
                "time_ratio": round(bands["processor_s"] / whole["processor_s"], 3),
                "memory_ratio": round(bands["memory_bytes"] / whole["memory_bytes"], 3),
            }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
