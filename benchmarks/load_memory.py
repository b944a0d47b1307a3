"""Memory that loading costs: a random transformer of the true klein-4b shapes, in either layout.

The file is written once, then loaded in a fresh process that reports how far its anonymous memory rose at most (what
the machine must really provide, other than mapped file pages, which it may drop). The last line printed is JSON:

    .venv/bin/python benchmarks/load_memory.py --layout diffusers
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import torch

from licht.checkpoint.detect import Layout
from licht.checkpoint.load import Placement, load_transformer
from licht.checkpoint.reader import open_source
from licht.checkpoint.save import Target, save_network
from licht.model.transformer import Flux2Transformer
from licht.model.variants import VARIANTS, TransformerConfig


def write_random(folder: Path, config: TransformerConfig, layout: Layout) -> int:
    """Write a transformer of random bfloat16 weights in shards; returns its size in bytes."""
    with torch.device("meta"):
        module = Flux2Transformer(config).bfloat16()
    module.to_empty(device="cpu")
    for parameter in module.parameters():
        parameter.data.uniform_(-0.02, 0.02)
    paths = save_network(module, Target(folder, "diffusion_pytorch_model"), layout)
    return sum(path.stat().st_size for path in paths)


def anonymous_bytes() -> int:
    """Anonymous resident memory of this process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise SystemExit("this benchmark needs Linux: /proc/self/status has no RssAnon")


def load_and_watch(folder: Path) -> dict[str, float]:
    """Load in this process while a thread samples the anonymous memory every few milliseconds."""
    before = anonymous_bytes()
    peak, done = before, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not done.is_set():
            peak = max(peak, anonymous_bytes())
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    module = load_transformer(open_source(folder), Placement(torch.device("cpu"), torch.bfloat16), {})
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    parameters = sum(parameter.numel() for parameter in module.parameters())
    return {"peak_added_bytes": peak - before, "load_s": round(seconds, 2), "parameters": parameters}


def main() -> None:
    """Write, load in a fresh process, report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variant", default="klein-4b", choices=sorted(VARIANTS))
    parser.add_argument("--layout", default="official", choices=[layout.value for layout in Layout])
    parser.add_argument("--folder", type=Path, help="load this folder, in this process")
    options = parser.parse_args()
    if options.folder:
        print(json.dumps(load_and_watch(options.folder)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        size = write_random(Path(temporary), VARIANTS[options.variant].transformer, Layout(options.layout))
        command = [sys.executable, __file__, "--folder", temporary]
        child = subprocess.run(command, check=True, capture_output=True, text=True)
    measured = json.loads(child.stdout.splitlines()[-1])
    share = measured["peak_added_bytes"] / size
    print(
        json.dumps(
            {
                "benchmark": "load_memory",
                "variant": options.variant,
                "layout": options.layout,
                "file_bytes": size,
                "share": round(share, 4),
                **measured,
            }
        )
    )


if __name__ == "__main__":
    main()
