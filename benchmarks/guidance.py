"""Which guidance and how many steps a model draws best with: held-out prompts of one and of two objects.

    python benchmarks/guidance.py --model nano-base --scales 2 3 4.5 6 --steps 8 20

Prints one line of JSON for each number of steps and each scale: the shares of pictures in which everything stated is
right, with 95 % intervals. All draw the same prompts with the same seeds.
"""

import argparse
import json
from itertools import product
from typing import Any

import torch

import licht
from licht.evaluation import scoring
from licht.evaluation.drawing import Drawer, Settings
from licht.evaluation.intervals import share
from licht.evaluation.judge import Judge
from licht.evaluation.suite_pictures import Prompt, prompts
from licht.evaluation.suites import SEED


def measured(drawer: Drawer, judge: Judge, asked: list[Prompt]) -> dict[str, float]:
    """The share of the prompts that are drawn right, and its interval."""
    seen = judge.look(torch.stack([drawer.draw(one.told.text, SEED + at) for at, one in enumerate(asked)]))
    right = [
        scoring.objects_right(one, prompt.scene, prompt.told.stated) for one, prompt in zip(seen, asked, strict=True)
    ]
    row = share(right)
    return {"value": row.value, "low": row.low, "high": row.high}


def main() -> None:
    """Draw with every combination of steps and scale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--scales", type=float, nargs="+", required=True)
    parser.add_argument("--steps", type=int, nargs="+", required=True)
    parser.add_argument("--n", type=int, default=100, help="Prompts of each kind.")
    given = parser.parse_args()
    model, judge = licht.load(given.model, policy="off"), Judge.load()
    asked = {"one_object": prompts("one", given.n), "two_objects": prompts("two", given.n)}
    for steps, scale in product(given.steps, given.scales):
        drawer = Drawer(model, Settings(steps, scale))
        line: dict[str, Any] = {"model": given.model, "steps": steps, "scale": scale, "n": given.n}
        print(json.dumps(line | {name: measured(drawer, judge, some) for name, some in asked.items()}), flush=True)


if __name__ == "__main__":
    main()
