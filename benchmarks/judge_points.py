"""What quantising the built-in model costs in the eyes of the judge: the same prompts and seeds in each format.

For every prompt two things are counted, each of a hundred: whether all that was stated of the subjects is seen (points), and
the share of what was stated that is seen (attributes). What is reported is the difference to exact weights, prompt by
prompt, with a 95 % interval. Pictures of a format are drawn once and what was seen in them is kept in `--folder`, so that
formats can be measured one at a time. The last line printed is JSON:

    .venv/bin/python benchmarks/judge_points.py --folder points --n 60
"""

import argparse
import json
from pathlib import Path

import torch

from licht import load
from licht.checkpoint.catalog import find_model
from licht.checkpoint.convert import convert
from licht.checkpoint.detect import Layout
from licht.evaluation.drawing import Drawer, Settings
from licht.evaluation.intervals import mean
from licht.evaluation.judge import Judge
from licht.evaluation.scoring import attributes_right, objects_right
from licht.evaluation.seen import Seen
from licht.evaluation.suite_pictures import Prompt, prompts
from licht.world.render import render

FORMATS = ("none", "int8", "fp8", "q4", "nvfp4")
Scores = dict[str, list[float]]


def attributes(seen: Seen, prompt: Prompt) -> float:
    """The share of what the caption states of its subjects that the judge sees; a subject that it misses has none."""
    found = attributes_right(seen, prompt.scene, prompt.told.stated)
    return 100 * sum(found) / len(found)


def scored(seen: list[Seen], asked: list[Prompt]) -> Scores:
    """Both figures of each prompt."""
    return {
        "points": [100.0 * objects_right(one, p.scene, p.told.stated) for one, p in zip(seen, asked, strict=True)],
        "attributes": [attributes(one, p) for one, p in zip(seen, asked, strict=True)],
    }


def measured(folder: Path, form: str, asked: list[Prompt]) -> Scores:
    """Draw in a format and judge; "ceiling" judges true pictures instead."""
    if form == "ceiling":
        pictures = list(render([prompt.scene for prompt in asked], 128, 128))
    else:
        if form != "none" and not (folder / form).is_dir():
            convert(find_model("nano"), folder / form, Layout.OFFICIAL, form, print)
        model = load("nano" if form == "none" else str(folder / form), device="cpu", policy="off")
        drawer = Drawer(model, Settings())
        pictures = [drawer.draw(prompt.told.text, at) for at, prompt in enumerate(asked)]
    return scored(Judge.load().look(torch.stack(pictures)), asked)


def main() -> None:
    """Each format, then its differences."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where models and results are kept")
    parser.add_argument("--n", type=int, default=60, help="prompts, half of them with two objects")
    parser.add_argument("--formats", nargs="+", default=["ceiling", *FORMATS], choices=["ceiling", *FORMATS])
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    asked = [*prompts("one", options.n - options.n // 2), *prompts("two", options.n // 2)]
    found: dict[str, Scores] = {}
    for form in options.formats:
        kept = options.folder / f"{form}-{options.n}.json"
        if not kept.is_file():
            kept.write_text(json.dumps(measured(options.folder, form, asked)))
        found[form] = json.loads(kept.read_text())
    said: dict[str, dict[str, list[float]]] = {}
    for form, scores in found.items():
        said[form] = {}
        for name, values in scores.items():
            exact = found["none"][name] if "none" in found and form not in ("none", "ceiling") else None
            less = values if exact is None else [one - other for one, other in zip(values, exact, strict=True)]
            row = mean(less)
            said[form][name] = [round(one, 1) for one in (row.value, row.low, row.high)]
        print(form, said[form], flush=True)
    print(json.dumps({"benchmark": "judge_points", "prompts": len(asked), **said}))


if __name__ == "__main__":
    main()
