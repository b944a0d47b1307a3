import dataclasses

import pytest
import torch
from torch import Tensor

from licht.model.text import TextTower, causal_mask
from licht.model.variants import TextConfig
from tests.support import models


@pytest.fixture(scope="module", params=[models.TEXT, models.MISTRAL_TEXT], ids=["qwen3", "mistral3"])
def tower(request: pytest.FixtureRequest) -> TextTower:
    text: TextConfig = request.param
    return models.tower(dataclasses.replace(text, length=12))


def ids(batch: int = 1, length: int = 12) -> Tensor:
    return torch.randint(0, 300, (batch, length), generator=torch.Generator().manual_seed(length))


def all_attended(ids_BL: Tensor) -> Tensor:
    return torch.ones_like(ids_BL, dtype=torch.bool)


def test_only_the_layers_in_use_exist(tower: TextTower) -> None:
    assert tower.config.tower.num_layers == 4
    assert len(tower.layers) == 3


@torch.no_grad()
def test_the_states_of_the_chosen_layers_are_stacked(tower: TextTower) -> None:
    tokens = ids(2)
    states = tower(tokens, all_attended(tokens))
    assert states.shape == (2, 12, 3 * 16)
    by_layer = []
    for layers in [(0,), (1,), (2,), (3,)]:
        one = TextTower(dataclasses.replace(tower.config, layers=layers))
        one.load_state_dict(tower.state_dict(), strict=False)
        by_layer.append(one(tokens, all_attended(tokens)))
    assert torch.equal(by_layer[0], tower.embed_tokens(tokens))
    assert torch.equal(torch.cat(by_layer[1:], dim=-1), states)
    assert not torch.allclose(by_layer[1], by_layer[2])


def test_no_token_sees_a_later_one(tower: TextTower) -> None:
    tokens = ids()
    changed = tokens.clone()
    changed[0, 7] += 1
    before, after = (tower(t, all_attended(t)) for t in (tokens, changed))
    torch.testing.assert_close(before[:, :7], after[:, :7])
    assert (before - after)[0, 7:].abs().amax(dim=-1).min() > 1e-5


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_hidden_from_the_prompt(tower: TextTower, side: str) -> None:
    tokens, attended = ids(), torch.zeros(1, 12, dtype=torch.bool)
    real = slice(5, None) if side == "left" else slice(0, 7)
    attended[0, real] = True
    changed = torch.where(attended, tokens, (tokens + 1) % 300)
    before, after = tower(tokens, attended), tower(changed, attended)
    torch.testing.assert_close(before[:, real], after[:, real])
    assert torch.isfinite(before).all()
    assert not torch.allclose(before, after)


def test_a_prompt_of_nothing_but_padding_is_finite(tower: TextTower) -> None:
    tokens = ids()
    assert torch.isfinite(tower(tokens, torch.zeros_like(tokens, dtype=torch.bool))).all()


def test_prompts_do_not_see_one_another(tower: TextTower) -> None:
    tokens = ids(3)
    together = tower(tokens, all_attended(tokens))
    alone = tower(tokens[1:2], all_attended(tokens[1:2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)


def test_the_mask_is_causal_and_hides_padding() -> None:
    mask = causal_mask(torch.tensor([[False, True, True]]))
    assert mask.shape == (1, 1, 3, 3)
    assert mask[0, 0].tolist() == [[False, False, False], [False, True, False], [False, True, True]]
