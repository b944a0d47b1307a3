"""What a latent costs and what it gives: autoencoders of several kinds, and flow models trained equally on each.

    python benchmarks/autoencoder_study.py --folder ~/study 16 16+semantic 64 64+semantic 128 128+semantic 128+uniform

A variant is the number of channels a token (four times the latent channels), then what regularises it: `semantic` (a
linear map of each latent position tells what is seen there) or `noise` (the decoder bears up to half a deviation of it).
Others change the flow model alone: with `grounded` a layer in its middle tells what will stand where, `uniform` and
`plateau` draw its times from another distribution.
Each trains an autoencoder, then a flow model on scenes of one and two objects, for the same steps on the same pictures.
Runs are kept in the folder and gone on with; every finished variant prints one line of JSON.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor

import licht
from licht.checkpoint.assets import built_in
from licht.evaluation import scoring, segmentation
from licht.evaluation.decoded import decoded
from licht.evaluation.distance import energy_distance
from licht.evaluation.drawing import Drawer, Settings
from licht.evaluation.intervals import share
from licht.evaluation.judge import Judge
from licht.evaluation.suite_pictures import Prompt, prompts
from licht.evaluation.suite_words import ssim
from licht.evaluation.suites import SEED
from licht.recipes.nano import nano_autoencoder, nano_base
from licht.training.config import Recipe, Source, Stream, override
from licht.training.export import Release, export_run
from licht.training.objectives import psnr
from licht.world.render import render
from licht.world.sample import sample_kind, sample_scene

Changes = dict[str, dict[str, object]]
REGULARISERS: Changes = {"semantic": {"semantic": 0.1}, "noise": {"noise": 0.5}}
FLOWS: Changes = {"grounded": {"grounded": 0.05}, "uniform": {"shape": "uniform"}, "plateau": {"shape": "plateau"}}
KINDS = ("one", "two", "relation")
ROWS = 6_000
HOURS = 24 * 60.0


def of_autoencoder(variant: str) -> str:
    """The part of a variant's name that its autoencoder has."""
    return "+".join(name for name in variant.split("+") if name not in FLOWS)


def changed(recipe: Recipe, part: str, variant: str, known: Changes) -> Recipe:
    """The recipe with what those of the variant's names that are `known` set in its `part`."""
    for name in variant.split("+")[1:]:
        fields = known.get(name, {})
        recipe = override(recipe, {f"{part}.{field}": str(value) for field, value in fields.items()})
    return recipe


def autoencoder_recipe(variant: str, steps: int) -> Recipe:
    """The recipe of the family, with the variant's channels and regularisers."""
    channels, *_ = variant.split("+")
    recipe = changed(nano_autoencoder(), "autoencoder", variant, REGULARISERS)
    return dataclasses.replace(
        recipe,
        name=f"autoencoder {of_autoencoder(variant)}",
        networks=dataclasses.replace(recipe.networks, z_channels=int(channels) // 4),
        optim=dataclasses.replace(recipe.optim, steps=steps),
    )


def flow_recipe(variant: str, autoencoder: Path, steps: int, batch: int) -> Recipe:
    """Text to image only, one size."""
    recipe = changed(nano_base(), "flow", variant, FLOWS)
    networks = autoencoder_recipe(variant, 1).networks
    return dataclasses.replace(
        recipe,
        name=f"flow {variant}",
        autoencoder_from=str(autoencoder),
        networks=dataclasses.replace(networks, hidden_size=256, depth=2, depth_single=3),
        optim=dataclasses.replace(recipe.optim, steps=steps, batch=batch, compile=True, ema=0.99, decay_share=0.5),
        data=dataclasses.replace(recipe.data, streams=(Stream("study", Source.PICTURE, KINDS, ROWS, 1.0),)),
    )


def follow(recipe: Recipe, run: Path, data: Path) -> None:
    """Train to the end, in a process of its own."""
    run.mkdir(parents=True, exist_ok=True)
    file = run.with_suffix(".json")
    file.write_text(recipe.as_json())
    command = [sys.executable, "-m", "licht", "train", str(file), "--minutes", str(HOURS)]
    subprocess.run([*command, "--run", str(run), "--data", str(data)], check=True, stdout=subprocess.DEVNULL)


def measured(flow: Path, count: int, steps: int, guidance: float) -> dict[str, float]:
    """Figures of the autoencoder on held-out pictures of every kind, and of what the flow model draws."""
    judge = Judge.load()
    with TemporaryDirectory() as folder:
        export_run(flow, Path(folder) / "model", built_in(), Release())
        model = licht.load(str(Path(folder) / "model"), policy="off")
        scenes = [sample_scene(sample_kind(SEED, at), SEED, at, split="test") for at in range(count)]
        true = render(scenes, 128, 128)
        back = decoded(model.engine.autoencoder, true)
        figures = {
            "psnr_db": float(psnr(_signed(back), _signed(true)).mean()),
            "ssim": float(ssim(_signed(back) / 2 + 0.5, _signed(true) / 2 + 0.5).mean()),
            "distance_decoded": energy_distance(judge.features(back), judge.features(true)),
        }
        asked = prompts("one", count // 2) + prompts("two", count // 2)
        drawer = Drawer(model, Settings(steps, guidance))
        drawn = torch.stack([drawer.draw(one.told.text, SEED + at) for at, one in enumerate(asked)])
    return figures | _of_drawn(judge, asked, drawn)


def _signed(pictures_BHWC: Tensor) -> Tensor:
    return pictures_BHWC.permute(0, 3, 1, 2).float() / 127.5 - 1


def _of_drawn(judge: Judge, asked: list[Prompt], drawn_BHWC: Tensor) -> dict[str, float]:
    true = render([prompt.scene for prompt in asked], 128, 128)
    seen = judge.look(drawn_BHWC)
    right = [
        scoring.objects_right(one, prompt.scene, prompt.told.stated) for one, prompt in zip(seen, asked, strict=True)
    ]
    attributes = [
        hit
        for one, prompt in zip(seen, asked, strict=True)
        for hit in scoring.attributes_right(one, prompt.scene, prompt.told.stated)
    ]
    colors = [(at, found) for at, prompt in enumerate(asked) if (found := segmentation.row_colors(prompt.scene))]
    return {
        "distance_drawn": energy_distance(judge.features(drawn_BHWC), judge.features(true)),
        "attributes": share(attributes).value,
        "all_right": share(right).value,
        "colors": share([segmentation.colors_in_order(drawn_BHWC[at], found) for at, found in colors]).value,
    }


def main() -> None:
    """Train and measure each variant in turn."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", nargs="+")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--autoencoder-steps", type=int, default=1_300)
    parser.add_argument("--flow-steps", type=int, default=700)
    parser.add_argument("--flow-batch", type=int, default=64)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--guidance", type=float, default=3.0)
    options = parser.parse_args()
    for name in {name for variant in options.variants for name in variant.split("+")[1:]} - {*REGULARISERS, *FLOWS}:
        parser.error(f"{name} is none of {', '.join((*REGULARISERS, *FLOWS))}")
    folder = options.folder.expanduser()
    for variant in options.variants:
        common = of_autoencoder(variant)
        run, flow = folder / f"autoencoder-{common}", folder / f"flow-{variant}"
        follow(autoencoder_recipe(variant, options.autoencoder_steps), run, folder / "pictures")
        follow(flow_recipe(variant, run, options.flow_steps, options.flow_batch), flow, folder / f"latents-{common}")
        figures = measured(flow, options.n, options.steps, options.guidance)
        print(
            json.dumps({"variant": variant, **{name: round(value, 5) for name, value in figures.items()}}), flush=True
        )


if __name__ == "__main__":
    main()
