"""Planned against measured peaks of memory, for requests of every kind on this machine.

The model has the true widths of klein-4b, with five blocks and three layers of text. Each request is drawn in one step by
a fresh process with so little memory allowed that the wanted plan is chosen; its largest resident memory is compared
with the plan. The last line printed is JSON:

    .venv/bin/python benchmarks/plan_accuracy.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from real_size import write_model  # type: ignore[import-not-found,unused-ignore] # it lies beside this file

from licht.checkpoint.folder import ModelFiles, read_folder
from licht.checkpoint.packed import stored_format
from licht.core.request import ImageRequest, ImageResult, Picture, Progress, Reference
from licht.core.sizes import Size
from licht.engine.calibrate import machine
from licht.engine.engine import Choice, Engine
from licht.model.variants import VARIANTS, Variant
from licht.plan.plan import Machine, Plan, Residency, Setup, choose, make_plan
from licht.plan.work import Request


@dataclass(frozen=True)
class Case:
    """One request and the plan that it is to be drawn with."""

    form: str
    residency: Residency
    width: int
    height: int
    images: int = 0
    num: int = 1
    banded: bool = False


CASES = (
    Case("none", Residency.RESIDENT, 512, 512),
    Case("none", Residency.RESIDENT, 1024, 768),
    Case("none", Residency.IN_TURN, 768, 768),
    Case("none", Residency.IN_TURN, 512, 1024, images=1),
    Case("none", Residency.IN_TURN, 1024, 1024),
    Case("none", Residency.STREAMED, 512, 512, banded=True),
    Case("none", Residency.RESIDENT, 512, 512, images=3),
    Case("int8", Residency.RESIDENT, 512, 768),
    Case("int8", Residency.IN_TURN, 1024, 512, num=2),
    Case("q4", Residency.RESIDENT, 768, 512),
    Case("q4", Residency.IN_TURN, 512, 512, images=2),
    Case("fp8", Residency.IN_TURN, 1024, 1024),
    Case("none", Residency.STREAMED, 1024, 1024, banded=True),
    Case("q4", Residency.STREAMED, 768, 768, banded=True),
)


def small_variant() -> Variant:
    """The widths of klein-4b, and few layers."""
    full = VARIANTS["klein-4b"]
    sizes = replace(full.transformer, depth=1, depth_single_blocks=4)
    tower = replace(full.text.tower, num_layers=4)
    return replace(full, name="narrow", transformer=sizes, text=replace(full.text, tower=tower, layers=(1, 2, 3)))


def planned(files: ModelFiles, case: Case) -> Plan:
    """The plan of a case."""
    size = Size(case.width, case.height)
    request = Request(size, case.images, case.num, steps=1, reference_size=Size(512, 512))
    here: Machine = replace(machine(torch.device("cpu"), 2**50), streams_quantised=False)
    setup = Setup(
        case.residency, "none", "bfloat16", case.banded, stored_format(files.transformer), stored_format(files.tower)
    )
    return make_plan(files.variant, request, here, setup)


def draw(folder: Path, case: Case) -> dict[str, int]:
    """Draw in this process; returns the largest resident memory of each stage."""
    picture = Picture(512, 512, np.random.default_rng(0).integers(0, 255, 512 * 512 * 3, np.uint8).tobytes())
    references = tuple(Reference(picture, f"image {number}") for number in range(1, case.images + 1))
    size = Size(case.width, case.height)
    request = ImageRequest("a red sphere", tuple(range(case.num)), references, size, steps=1)
    engine = Engine(read_folder(folder), Choice("cpu", "bfloat16"))
    chosen: list[Plan] = []

    def chosen_plan(*arguments: Any) -> Plan:  # noqa: ANN401 - whatever the engine asks
        chosen.append(choose(*arguments))
        return chosen[-1]

    peaks: dict[str, int] = {}
    drawn = 0
    with mock.patch("licht.engine.fit.choose", chosen_plan):
        for event in engine.run(request):
            drawn += isinstance(event, ImageResult)
            if isinstance(event, Progress) and event.done:
                peaks[event.stage] = max(peaks.get(event.stage, 0), peak_since_last())
    setup = chosen[0].setup
    if drawn != case.num or (setup.residency, setup.banded) != (case.residency, case.banded):
        raise SystemExit(f"{case} was drawn as {setup}")
    return peaks


def peak_since_last() -> int:
    """The largest resident memory since this was last asked."""
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    Path("/proc/self/clear_refs").write_text("5", "ascii")
    return peak


def main() -> None:
    """Every case in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="where the weights are, or are written to and kept")
    parser.add_argument("--only", type=int, nargs="*", help="numbers of cases, from 0")
    parser.add_argument("--draw", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.draw is not None:
        print(json.dumps(draw(options.folder, CASES[options.draw])))
        return
    off = []
    with tempfile.TemporaryDirectory() as temporary:
        for number, case in enumerate(CASES):
            if options.only and number not in options.only:
                continue
            folder = (options.folder or Path(temporary)) / case.form
            if not folder.is_dir():
                write_model(folder, small_variant(), case.form, transformer_only=False)
            plan = planned(read_folder(folder), case)
            environment = {**os.environ, "LICHT_MEMORY": str(plan.peak_bytes)}
            command = [sys.executable, __file__, "--folder", str(folder), "--draw", str(number)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
            stages = json.loads(done.stdout.splitlines()[-1])
            found = max(stages.values())
            off.append(abs(found / plan.peak_bytes - 1))
            row = {
                "case": f"{plan.setup.label}, {plan.request.num} x {plan.request.size}, {case.images} references",
                "planned_bytes": plan.peak_bytes,
                "measured_bytes": found,
                "ratio": round(found / plan.peak_bytes, 3),
                "stages": {one.name: [one.peak_bytes, stages[one.name]] for one in plan.stages},
            }
            print(json.dumps(row), flush=True)
    print(json.dumps({"benchmark": "plan_accuracy", "cases": len(off), "largest_error": round(max(off), 3)}))


if __name__ == "__main__":
    main()
