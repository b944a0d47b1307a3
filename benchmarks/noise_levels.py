"""At which noise a model goes wrong: it goes on from true pictures with so much noise, to the end, and the judge looks.

A prompt of one and of two objects alternately, each with its true picture. From time 1, pure noise, the model is on its own. What a
later start still gets wrong, the steps from there on are to blame for. Steps are those of the usual schedule that lie
below the start, `--steps` in all from time 1. The last line printed is JSON:

    .venv/bin/python benchmarks/noise_levels.py --model nano-base --n 80
"""

import argparse
import json

import torch
from tokenizers import Tokenizer

from licht.checkpoint.assets import built_in
from licht.evaluation.judge import Judge
from licht.evaluation.scoring import named_attributes_right, objects_right
from licht.evaluation.suite_pictures import prompts
from licht.recipes.nano import FAMILY
from licht.sampling.noise import tokens_to_grid
from licht.sampling.schedule import sigmas
from licht.training.objectives import psnr
from licht.training.preview import Latents, go_on
from licht.training.rendered import latents_of
from licht.training.tokenizer import CaptionEncoder
from licht.training.trained import named_folder, open_autoencoder, open_networks
from licht.world.render import render

GRID = (8, 8)
STARTS = (0.15, 0.32, 0.5, 0.7, 0.85, 0.95, 1.0)


def main() -> None:
    """Print a line a start, then JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano-base", help="a built-in model or a run of one of its sizes")
    parser.add_argument("--n", type=int, default=80)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0, help="1 is one plain pass; of step-distilled models too")
    args = parser.parse_args()
    folder = named_folder(args.model, built_in())
    networks = open_networks(folder, FAMILY).eval()
    autoencoder = open_autoencoder(built_in()["nano"])
    asked = [
        each for pair in zip(*(prompts(kind, args.n // 2) for kind in ("one", "two")), strict=True) for each in pair
    ]
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer" / "tokenizer.json"))
    encoder = CaptionEncoder(tokenizer, FAMILY.text_length)
    texts = [prompt.told.text for prompt in asked]
    true = render([prompt.scene for prompt in asked], 128, 128)
    x0 = latents_of(autoencoder, true).float()
    noise = torch.randn(x0.shape, generator=torch.Generator().manual_seed(0))
    guidance, judge, rows = None if args.guidance == 1 else args.guidance, Judge.load(), {}
    for start in (0.0, *STARTS):
        begun = Latents((1 - start) * x0 + start * noise, GRID)
        times = [start, *(t for t in sigmas(GRID[0] * GRID[1], args.steps) if t < start)]
        with torch.no_grad():
            latents = go_on(networks, encoder, texts, begun, times, guidance) if start else x0
            image = autoencoder.decode(tokens_to_grid(latents, GRID)).clamp(-1, 1)
        seen = judge.look(((image / 2 + 0.5) * 255).round().to(torch.uint8).permute(0, 2, 3, 1))
        told = [
            (prompt, one, named_attributes_right(one, prompt.scene, prompt.told.stated))
            for prompt, one in zip(asked, seen, strict=True)
        ]
        named = [each for _, _, some in told for each in some]
        rows[str(start)] = row = {
            "right": sum(objects_right(one, p.scene, p.told.stated) for p, one, _ in told) / len(told),
            **{
                f"wrong {name}": sum(not right for category, right in named if category == name)
                / sum(category == name for category, _ in named)
                for name in ("kind", "color", "material")
            },
            "psnr_db": float(psnr(image, true.permute(0, 3, 1, 2).float() / 127.5 - 1).mean()),
        }
        print(f"from {start:.2f}:", ", ".join(f"{name} {value:.3g}" for name, value in row.items()))
    print(
        json.dumps({"model": args.model, "n": len(asked), "steps": args.steps, "guidance": args.guidance, "rows": rows})
    )


if __name__ == "__main__":
    main()
