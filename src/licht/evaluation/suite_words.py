"""Words, read by an independent engine; and what the autoencoder alone makes of true pictures."""

from collections.abc import Sequence
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor

from licht.core.errors import InvalidRequest
from licht.evaluation.decoded import decoded
from licht.evaluation.intervals import mean, share, share_of_ceiling
from licht.evaluation.reading import reads
from licht.evaluation.suite_pictures import Prompt
from licht.evaluation.suites import BOLD, SEED, USUAL, Bench
from licht.world.captions import caption
from licht.world.render import render
from licht.world.sample import Kind, sample_kind, sample_scene

_LETTERS: Final = 5
_AT_ONCE: Final = 16


def text(bench: Bench) -> None:
    """Exact words of up to five letters, and two lines; held-out words, as shares of what is read in true pictures."""
    _words(bench, "words", prompts("word", bench.count(BOLD), _LETTERS))
    _words(bench, "two_lines", prompts("two_lines", bench.count(USUAL), 8))


def prompts(kind: Kind, count: int, longest: int) -> list[Prompt]:
    """Held-out scenes with words of at most `longest` letters."""
    found: list[Prompt] = []
    index = 0
    while len(found) < count:
        scene = sample_scene(kind, SEED, index, split="test")
        index += 1
        if scene.lettering is not None and max(map(len, scene.lettering.lines)) <= longest:
            found.append(Prompt(scene, caption(scene, SEED, index, split="test", full=True)))
    return found


def _words(bench: Bench, name: str, asked: Sequence[Prompt]) -> None:
    if bench.reader is None:
        raise InvalidRequest("the suite text needs a reader; install one with pip install 'lichtung[eval]'")
    drawn = [bench.draw(prompt.told.text, SEED + at) for at, prompt in enumerate(asked)]
    true = render([prompt.scene for prompt in asked], 128, 128)
    lines = [prompt.scene.lettering.lines for prompt in asked if prompt.scene.lettering is not None]
    hits = [reads(bench.reader(one), wanted) for one, wanted in zip(drawn, lines, strict=True)]
    ceiling = [reads(bench.reader(one), wanted) for one, wanted in zip(true, lines, strict=True)]
    rows = bench.notebook.rows
    rows[name] = share_of_ceiling(hits, ceiling)
    rows[f"{name}_raw"], rows[f"{name}_ceiling"] = share(hits), share(ceiling)
    bench.keep(name, drawn, [prompt.told.text for prompt in asked], hits)


def vae(bench: Bench) -> None:
    """PSNR and SSIM of held-out pictures after the autoencoder."""
    if bench.autoencoder is None:
        raise InvalidRequest("the suite vae needs a model with an autoencoder", field="model")
    count = bench.count(USUAL)
    scenes = [sample_scene(sample_kind(SEED, at), SEED, at, split="test") for at in range(count)]
    levels, alike = [], []
    for first in range(0, count, _AT_ONCE):
        pixels = render(scenes[first : first + _AT_ONCE], 128, 128)
        back = decoded(bench.autoencoder, pixels, exact=True)
        found, true = (each.permute(0, 3, 1, 2) / 255 for each in (back, pixels))
        error = (found - true).square().flatten(1).mean(1)
        levels += (-10 * torch.log10(error.clamp(min=1e-8))).tolist()
        alike += ssim(found, true).tolist()
        labels = [f"{value:.1f} dB" for value in levels[first:]]
        bench.keep("vae", list(back), labels, [value >= 37 for value in levels[first:]])
        bench.on_progress(first + len(pixels))
    bench.notebook.rows["vae_psnr"], bench.notebook.rows["vae_ssim"] = mean(levels), mean(alike)


def ssim(first_BCHW: Tensor, second_BCHW: Tensor) -> Tensor:
    """Structural similarity (Wang et al., 2004) of pictures in [0, 1], (B,): windows of 11 px, deviation 1.5."""
    offsets = torch.arange(-5, 6, dtype=torch.float32)
    line = torch.exp(-offsets.square() / 4.5)
    line = line / line.sum()
    window = (line[:, None] * line)[None, None].expand(3, 1, 11, 11)

    def blur(image: Tensor) -> Tensor:
        return F.conv2d(image, window, groups=3)

    mean_1, mean_2 = blur(first_BCHW), blur(second_BCHW)
    var_1 = blur(first_BCHW.square()) - mean_1.square()
    var_2 = blur(second_BCHW.square()) - mean_2.square()
    both = blur(first_BCHW * second_BCHW) - mean_1 * mean_2
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_1 * mean_2 + c1) * (2 * both + c2)
    bottom = (mean_1.square() + mean_2.square() + c1) * (var_1 + var_2 + c2)
    return (top / bottom).flatten(1).mean(1)
