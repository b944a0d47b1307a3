"""Models of the true sizes on this machine, with random weights: time and memory of every stage.

The weights are written in the format that is measured into a temporary folder, and drawn with in a fresh process; where
diffusers can do the same, it does so in another one. The last line printed is JSON:

    .venv/bin/python benchmarks/real_size.py klein-4b --size 512 --diffusers
    .venv/bin/python benchmarks/real_size.py klein-4b --size 512 --quant int8 --memory 6GiB
    .venv/bin/python benchmarks/real_size.py dev --size 512 --steps 2 --quant q4 --transformer-only
"""

import argparse
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from licht.checkpoint.assets import built_in
from licht.checkpoint.convert import description, quantised_entries
from licht.checkpoint.detect import Layout
from licht.checkpoint.folder import read_folder
from licht.checkpoint.load import Placement, load_transformer
from licht.checkpoint.names import Piece, autoencoder_layout, official_layout, transformer_layout
from licht.checkpoint.packed import open_weights
from licht.checkpoint.stream import Planned, write_stream
from licht.core.request import ImageRequest, ImageResult, Progress
from licht.core.sizes import Size
from licht.engine.engine import Choice, Engine, Stopwatch
from licht.engine.offload import stream_blocks
from licht.model.autoencoder import Autoencoder
from licht.model.positions import image_ids, text_ids
from licht.model.text import TextTower
from licht.model.transformer import Flux2Transformer
from licht.model.variants import VARIANTS, TextConfig, Tower, Variant
from licht.quant.pages import hand_back_freed_memory, keep_freed_memory
from licht.quant.swap import worth_quantising

PROMPT = "a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left"
CHUNK = 32 * 2**20
DECLARED = {"fp8": "float8_e4m3fn", "int8": "int8_rowwise", "q4": "q4"}
Entries = Mapping[str, tuple[torch.dtype, tuple[int, ...]]]
Network = Flux2Transformer | TextTower | Autoencoder


def random_tensors(entries: Entries, source: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Tensors for the entries of one matrix, such that its outputs are as large as its inputs."""
    made = {}
    for name, (dtype, shape) in entries.items():
        numbers = math.prod(shape)
        if name.endswith("_scale"):
            spread = {torch.float32: 100.0, torch.float16: 4.6}[dtype]
            made[name] = torch.full(shape, 1 / spread / math.sqrt(width), dtype=dtype)
        elif len(shape) <= 1:
            value = 1.0 if name.endswith(("norm.weight", "scale", "running_var")) or ".norm" in name else 0.0
            made[name] = torch.full(shape, value, dtype=dtype)
        else:
            stock = source["normal" if dtype is torch.bfloat16 else "bytes"]
            flat = stock.repeat(-(-numbers // CHUNK))[:numbers] if numbers > CHUNK else stock[:numbers]
            if dtype is torch.float8_e4m3fn:
                flat = flat & 0xFE  # two of its codes are no numbers, and a loader refuses them
            made[name] = (flat / math.sqrt(width) if dtype is torch.bfloat16 else flat.view(dtype)).view(shape)
    return made


def plan_network(network: Network, layout: Layout, form: str) -> tuple[list[Planned], dict[str, str]]:
    """What to write for a network on the meta device, and the metadata that declares its formats."""
    generator = torch.Generator().manual_seed(0)
    source = {
        "normal": torch.randn(CHUNK, generator=generator).bfloat16(),
        "bytes": torch.randint(0, 256, (CHUNK,), dtype=torch.uint8, generator=generator),
    }
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    planned, layers = [], {}
    for piece in _pieces(network, layout, list(state)):
        shape = piece.foreign_shape(tuple(state[piece.official].shape))
        owner, layer = piece.official.removesuffix(".weight"), piece.foreign.removesuffix(".weight")
        width = math.prod(shape[1:])
        entries: Entries = {piece.foreign: (torch.bfloat16, shape)}
        if form != "none" and worth_quantising(owner, shape):
            layers[layer] = {"format": DECLARED[form]}
            entries = quantised_entries(layer, form, (shape[0], shape[1]))
        planned.append(Planned(entries, partial(random_tensors, entries, source, width)))
    if isinstance(network, TextTower):
        norm: Entries = {"model.norm.weight": (torch.bfloat16, (network.config.tower.hidden_size,))}
        planned.append(Planned(norm, partial(random_tensors, norm, source, 1)))
    said = {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})} if layers else {}
    return planned, said


def _pieces(network: Network, layout: Layout, names: list[str]) -> Iterator[Piece]:
    if isinstance(network, TextTower):
        yield from (Piece(name, f"model.{name}") for name in names)
    elif layout is Layout.OFFICIAL:
        yield from official_layout(names)
    elif isinstance(network, Autoencoder):
        yield from autoencoder_layout(network.config)
    else:
        yield from transformer_layout(network.config)


def write_model(folder: Path, variant: Variant, form: str, transformer_only: bool) -> int:
    """Write a model folder in the diffusers layout, quantised ones with official names; returns its bytes."""
    layout = Layout.DIFFUSERS if form == "none" else Layout.OFFICIAL
    every_layer = TextConfig(variant.text.tower, (variant.text.tower.num_layers,))
    with torch.device("meta"):
        networks: dict[str, tuple[Network, Layout, str]] = {
            "transformer": (Flux2Transformer(variant.transformer), layout, form),
            "vae": (Autoencoder(variant.autoencoder), Layout.DIFFUSERS, "none"),
            "text_encoder": (TextTower(every_layer), layout, form),
        }
    total = 0
    for part, (network, names, small) in networks.items():
        if transformer_only and part != "transformer":
            continue
        stem = "model" if part == "text_encoder" else "diffusion_pytorch_model"
        planned, said = plan_network(network, names, small)
        total += write_stream(folder / part / f"{stem}.safetensors", planned, said)
    if not transformer_only:
        _describe(folder, variant)
    return total


def _describe(folder: Path, variant: Variant) -> None:
    """Configurations: those of the built-in model, with other sizes."""
    nano = built_in()["nano"]
    for name in ("tokenizer", "scheduler"):
        shutil.copytree(nano / name, folder / name)
    index = json.loads((nano / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "is_distilled": True}))
    tower, sizes, vae = variant.text.tower, variant.transformer, variant.autoencoder
    if tower.tower is not Tower.QWEN3:
        raise SystemExit("only models with a Qwen3 tower are drawn with whole; use --transformer-only")
    changes: dict[str, dict[str, Any]] = {
        "transformer": {
            "attention_head_dim": sizes.head_dim,
            "axes_dims_rope": list(sizes.axes_dim),
            "joint_attention_dim": sizes.context_in_dim,
            "num_attention_heads": sizes.num_heads,
            "num_layers": sizes.depth,
            "num_single_layers": sizes.depth_single_blocks,
        },
        "vae": {"block_out_channels": list(vae.channels), "layers_per_block": 2, "norm_num_groups": 32},
        "text_encoder": {
            "head_dim": tower.head_dim,
            "hidden_size": tower.hidden_size,
            "intermediate_size": tower.intermediate_size,
            "layer_types": ["full_attention"] * tower.num_layers,
            "max_position_embeddings": 40960,
            "num_attention_heads": tower.num_attention_heads,
            "num_hidden_layers": tower.num_layers,
            "num_key_value_heads": tower.num_key_value_heads,
            "rope_parameters": {"rope_theta": tower.rope_theta, "rope_type": "default"},
            "vocab_size": tower.vocab_size,
        },
    }
    for part, change in changes.items():
        said = json.loads((nano / part / "config.json").read_text())
        (folder / part / "config.json").write_text(json.dumps({**said, **change}))
    (folder / "licht.json").write_text(json.dumps(description(replace(variant, trained_sizes=()), None)))


def run_licht(folder: Path, size: int, steps: int) -> dict[str, Any]:
    """Draw once, in this process."""
    started = time.perf_counter()
    engine = Engine(read_folder(folder), Choice("cpu", "bfloat16"))
    watch = Stopwatch()
    request = ImageRequest(PROMPT, (1,), (), Size(size, size), steps=steps)
    drawn = 0
    processor: dict[str, float] = {"start": time.process_time()}
    last = time.process_time()
    for event in engine.run(request):
        if isinstance(event, Progress):
            watch.see(event)
            now = time.process_time()
            if event.done:
                processor[event.stage] = processor.get(event.stage, 0.0) + now - last
                print(f"{event.stage} {event.done}: {now - last:.1f} s of processors", file=sys.stderr, flush=True)
            last = now
        drawn += isinstance(event, ImageResult)
    if drawn != 1:
        raise SystemExit("no picture was drawn")
    stages = {"stages": watch.seconds, "processor_stages": processor}
    return {"seconds": time.perf_counter() - started, **stages, **used()}


def run_diffusers(folder: Path, size: int, steps: int) -> dict[str, Any]:
    """The same with diffusers, everything resident as it is by default."""
    from diffusers import Flux2KleinPipeline

    started = time.perf_counter()
    pipe = Flux2KleinPipeline.from_pretrained(str(folder), torch_dtype=torch.bfloat16)
    pipe.set_progress_bar_config(disable=True)
    loaded = time.perf_counter() - started
    marks: list[float] = []

    def mark(pipe: object, step: int, time_left: object, values: dict[str, Any]) -> dict[str, Any]:
        del pipe, step, time_left
        marks.append(time.perf_counter() - started)
        return values

    pipe(
        prompt=PROMPT,
        height=size,
        width=size,
        num_inference_steps=steps,
        guidance_scale=1.0,
        generator=torch.Generator("cpu").manual_seed(1),
        callback_on_step_end=mark,
    )
    stages = {"load": loaded, "first step": marks[0] - loaded, "all steps": marks[-1] - loaded}
    return {"seconds": time.perf_counter() - started, "stages": stages, **used()}


def run_transformer(folder: Path, variant: Variant, size: int, steps: int, streamed: bool) -> dict[str, Any]:
    """Some steps of the transformer alone, on random text."""
    (hand_back_freed_memory if streamed else keep_freed_memory)()
    started = time.perf_counter()
    placement = Placement(torch.device("cpu"), torch.bfloat16)
    network = load_transformer(open_weights(folder / "transformer"), placement, {})
    if streamed:
        stream_blocks(network, placement.device)
    loaded = time.perf_counter() - started
    sizes, grid = variant.transformer, (size // 16, size // 16)
    x = torch.randn(1, grid[0] * grid[1], sizes.in_channels).bfloat16()
    text = torch.randn(1, variant.text.length, sizes.context_in_dim).bfloat16()
    guidance = torch.full((1,), 4.0) if sizes.guidance_embed else None
    times: list[float] = []
    processor: list[float] = []
    with torch.inference_mode():
        for step in range(steps):
            begun, used_before = time.perf_counter(), time.process_time()
            t = torch.full((1,), 1 - step / steps)
            out = network(x, image_ids(grid), text, text_ids(variant.text.length), t, guidance)
            times.append(time.perf_counter() - begun)
            processor.append(time.process_time() - used_before)
            print(
                f"step {step + 1}: {times[-1]:.1f} s, {processor[-1]:.1f} s of processors", file=sys.stderr, flush=True
            )
            if not bool(torch.isfinite(out).all()):
                raise SystemExit("the velocity is not finite")
    stages = {"load": loaded, **{f"step {number}": spent for number, spent in enumerate(times, start=1)}}
    step_processor_s = sum(processor) / len(processor)
    return {
        "seconds": time.perf_counter() - started,
        "stages": stages,
        "step_processor_s": step_processor_s,
        **used(),
    }


def used() -> dict[str, float]:
    """Peak of resident memory and processor time of this process."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {"peak_bytes": usage.ru_maxrss * 1024, "processor_s": usage.ru_utime + usage.ru_stime}


def chosen(options: argparse.Namespace) -> Variant:
    """The model, with fewer blocks if that was asked for."""
    variant = VARIANTS[options.model]
    if options.blocks is None:
        return variant
    double, single = options.blocks
    return replace(variant, transformer=replace(variant.transformer, depth=double, depth_single_blocks=single))


def child(options: argparse.Namespace) -> dict[str, Any]:
    """Measure in this process."""
    torch.set_num_threads(options.threads)
    variant = chosen(options)
    if options.child == "diffusers":
        return run_diffusers(options.folder, options.size, options.steps)
    if options.transformer_only:
        return run_transformer(options.folder, variant, options.size, options.steps, options.streamed)
    return run_licht(options.folder, options.size, options.steps)


def measure(options: argparse.Namespace, folder: Path, who: str) -> dict[str, Any]:
    """Measure in a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    if options.memory:
        environment["LICHT_MEMORY"] = options.memory
    arguments = [f"--{name}={getattr(options, name)}" for name in ("size", "steps", "quant", "threads")]
    arguments += [f"--{name}" for name in ("transformer-only", "streamed") if getattr(options, name.replace("-", "_"))]
    if options.blocks:
        arguments += ["--blocks", *map(str, options.blocks)]
    command = [sys.executable, __file__, options.model, *arguments, "--child", who, "--folder", str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    found = {name: _rounded(value) for name, value in said.items()}
    print(who, json.dumps(found), flush=True)
    return found


def _rounded(value: Any) -> Any:  # noqa: ANN401 - JSON
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    return round(value, 2) if isinstance(value, float) else value


def main() -> None:
    """Write, measure, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", choices=sorted(VARIANTS))
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--quant", default="none", choices=["none", *DECLARED])
    parser.add_argument("--memory", help="plan with at most so much memory")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--diffusers", action="store_true", help="measure diffusers too")
    parser.add_argument("--transformer-only", action="store_true")
    parser.add_argument("--streamed", action="store_true", help="stream the blocks of the transformer alone")
    parser.add_argument("--blocks", type=int, nargs=2, metavar=("DOUBLE", "SINGLE"), help="only so many of true widths")
    parser.add_argument("--folder", type=Path, help="where the weights are, or are written to and kept")
    parser.add_argument("--child", choices=["licht", "diffusers"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(child(options)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        if not (folder / "transformer").is_dir():
            started = time.perf_counter()
            size = write_model(folder, chosen(options), options.quant, options.transformer_only)
            print(f"wrote {size:,} bytes in {time.perf_counter() - started:.0f} s", flush=True)
        said = {"benchmark": "real_size", "model": options.model, "size": options.size, "steps": options.steps}
        said |= {"format": options.quant, "memory": options.memory, "licht": measure(options, folder, "licht")}
        if options.diffusers:
            theirs = measure(options, folder, "diffusers")
            said |= {"diffusers": theirs}
            for name in ("seconds", "processor_s", "peak_bytes"):
                said[f"{name.partition('_')[0]}_ratio"] = round(said["licht"][name] / theirs[name], 3)
    print(json.dumps(said))


if __name__ == "__main__":
    main()
