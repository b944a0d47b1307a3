"""Sheets during training show what the engine draws with the same weights."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

import licht
from licht.sampling.noise import initial_noise
from licht.training.config import Task
from licht.training.export import Release, export_run
from licht.training.flow import FlowNetworks
from licht.training.preview import Latents, Sampling, draw, go_on
from licht.training.tokenizer import CaptionEncoder
from licht.training.trained import open_autoencoder, open_networks
from tests.training.runs import TINY, alive, autoencoder_run, flow_run
from tests.training.test_distil import ENCODER

PROMPT = "a small blue cube on a teal floor"


@pytest.mark.parametrize(("task", "guidance"), [(Task.FLOW, 2.5), (Task.GUIDANCE, 2.5), (Task.STEPS, None)], ids=str)
def test_sheets_show_what_the_engine_draws(tmp_path: Path, task: Task, guidance: float | None) -> None:
    autoencoder_run(tmp_path / "vae")
    flow_run(tmp_path / "run", tmp_path / "vae", task)
    export_run(tmp_path / "run", tmp_path / "model", {}, Release(steps=3, guidance=guidance))
    tokenizer = Tokenizer.from_file(str(tmp_path / "model" / "tokenizer" / "tokenizer.json"))
    sheet = draw(
        open_networks(tmp_path / "model", TINY).eval(),
        open_autoencoder(tmp_path / "model"),
        CaptionEncoder(tokenizer, TINY.text_length),
        [PROMPT],
        Sampling(3, guidance),
    )
    drawn = licht.load(tmp_path / "model", policy="off", dtype="float32").generate(PROMPT, seed=0)[0].image
    apart = np.abs(np.asarray(drawn.convert("RGB")).astype(int) - sheet[0].numpy().astype(int))
    assert sheet.float().std() > 1
    assert apart.max() <= 1


@pytest.mark.parametrize("guidance", [None, 3.0])
def test_it_goes_on_where_it_stopped(guidance: float | None) -> None:
    networks = FlowNetworks(TINY)
    alive(networks, 5)
    begun = torch.cat([initial_noise(seed, (4, 4), 4 * TINY.z_channels) for seed in range(2)])
    prompts = [PROMPT, "a large red sphere on a gray floor"]
    whole = go_on(networks, ENCODER, prompts, Latents(begun, (4, 4)), [1.0, 0.8, 0.5, 0.0], guidance)
    half = go_on(networks, ENCODER, prompts, Latents(begun, (4, 4)), [1.0, 0.8, 0.5], guidance)
    assert not torch.allclose(half, whole)
    end = go_on(networks, ENCODER, prompts, Latents(half, (4, 4)), [0.5, 0.0], guidance)
    assert torch.allclose(end, whole, atol=1e-6)
