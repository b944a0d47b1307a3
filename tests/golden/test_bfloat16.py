"""In bfloat16 Licht is no farther from float32 than the reference is."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_transformer
from licht.evaluation.compare import CASES, SEED, compare_model
from licht.evaluation.golden import ReferenceModel
from licht.evaluation.measured import relative_error
from licht.model.transformer import Flux2Transformer
from licht.model.variants import Kind
from tests.golden.inside import Inputs, inputs_for, reference_blocks
from tests.golden.sections import BFLOAT16, FLOAT32, KINDS, Models

MARGIN = 1.15
"""How much farther rounding errors may be by chance."""


@pytest.fixture(scope="module", params=KINDS)
def files(request: pytest.FixtureRequest, built: Models) -> ModelFiles:
    return built.files(request.param)


def _rounded(given: Inputs) -> Inputs:
    """Inputs that bfloat16 can hold, so that only the networks round."""
    return replace(
        given,
        x_BLC=given.x_BLC.bfloat16(),
        references_BRC=given.references_BRC.bfloat16(),
        text_BTD=given.text_BTD.bfloat16(),
        timesteps_B=torch.tensor([0.875, 0.25]),
    )


def _widened(given: Inputs) -> Inputs:
    return replace(
        given, x_BLC=given.x_BLC.float(), references_BRC=given.references_BRC.float(), text_BTD=given.text_BTD.float()
    )


@torch.inference_mode()
def _velocity(files: ModelFiles, placement: Placement, given: Inputs) -> Tensor:
    ours = load_transformer(files.transformer, placement, files.transformer_config)
    if files.variant.kind is Kind.KV:
        cache = ours.reference_cache(given.references_BRC, given.reference_ids, given.guidance_B)
        x, x_ids = given.x_BLC, given.x_ids
    else:
        cache = None
        x = torch.cat([given.x_BLC, given.references_BRC], dim=1)
        x_ids = torch.cat([given.x_ids, given.reference_ids])
    out: Tensor = ours(x, x_ids, given.text_BTD, given.text_ids, given.timesteps_B, given.guidance_B, cache=cache)
    return out


@torch.inference_mode()
def test_velocity(files: ModelFiles) -> None:
    given = _rounded(inputs_for(load_transformer(files.transformer, FLOAT32, files.transformer_config)))
    exact = _velocity(files, FLOAT32, _widened(given))
    ours = relative_error(_velocity(files, BFLOAT16, given), exact)
    theirs = relative_error(reference_blocks(files, BFLOAT16, given)["velocity"], exact)
    assert 1e-4 < ours <= MARGIN * theirs


@torch.inference_mode()
def test_decoded_image(files: ModelFiles) -> None:
    exact, rounded = (load_autoencoder(files.autoencoder, p, files.autoencoder_config) for p in (FLOAT32, BFLOAT16))
    latents = torch.randn(1, 128, 6, 5, generator=torch.Generator().manual_seed(SEED)).bfloat16()
    image = exact.decode(latents.float())
    with ReferenceModel(files, BFLOAT16).drawing() as drawing:
        theirs = relative_error(drawing.decode(latents), image)
    ours = relative_error(rounded.decode(latents), image)
    assert 1e-4 < ours <= MARGIN * theirs


@pytest.mark.slow
def test_how_time_is_rounded_is_the_whole_difference_of_drawings(
    built: Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pipelines of the reference round `1000 t`, the official code `t`; with their rounding we draw what they do."""
    files = built.files("klein")
    official = _final_latents(files)
    conditioning = Flux2Transformer.conditioning

    def rounded_as_the_pipelines_do(
        self: Flux2Transformer, timesteps: Tensor, guidance_B: Tensor | None, dtype: torch.dtype
    ) -> Tensor:
        return conditioning(self, (1000 * timesteps.float()).to(dtype) / 1000, guidance_B, dtype)

    monkeypatch.setattr(Flux2Transformer, "conditioning", rounded_as_the_pipelines_do)
    assert _final_latents(files) < 0.01 < official


def _final_latents(files: ModelFiles) -> float:
    """The difference of the wide drawing, whose times happen to be rounded differently in two of four steps."""
    wide = next(case for case in CASES if case.name == "wide")
    rows = list(compare_model(files, BFLOAT16, (wide,)))
    (error,) = (row.error for row in rows if row.component == "final latents")
    return error
