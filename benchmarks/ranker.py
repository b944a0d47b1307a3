"""Whether the model as a ranker knows what a prompt says: it has to find the picture of a prompt among four.

    python benchmarks/ranker.py --kind one --n 31

The four are true pictures of the rendered world, of scenes that the model was not trained on: one of the prompt's scene,
three of others of the same kind. Whoever guesses finds one in four. The last line is JSON.
"""

import argparse
import json
import random

import licht
from licht.core.request import ImageRequest
from licht.engine.ranker import LikelihoodRanker
from licht.evaluation.drawing import to_picture
from licht.evaluation.intervals import share
from licht.evaluation.suite_pictures import prompts
from licht.world.render import render

SCENES = 100
OTHERS = 3


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--kind", choices=["one", "two"], default="one", help="objects in a scene")
    parser.add_argument("--n", type=int, default=SCENES, help=f"prompts, at most {SCENES}")
    options = parser.parse_args()
    model = licht.load(options.model, policy="off")
    ranker = LikelihoodRanker(model.engine)
    asked = prompts(options.kind, SCENES)
    pictures = [to_picture(one) for one in render([prompt.scene for prompt in asked], 128, 128)]
    chance, right = random.Random(0), []
    for number in range(min(options.n, SCENES)):
        others = chance.sample([other for other in range(SCENES) if other != number], OTHERS)
        text = model.settle_prompt(ImageRequest(asked[number].told.text, (0,))).text
        scores = ranker.score(text, [pictures[number], *(pictures[other] for other in others)], ())
        right.append(scores[0] == max(scores))
    found = share(right)
    told = {"model": model.name, "kind": options.kind, "right": sum(right), "of": len(right)}
    print(
        json.dumps({**told, "share": round(found.value, 3), "low": round(found.low, 3), "high": round(found.high, 3)})
    )


if __name__ == "__main__":
    main()
