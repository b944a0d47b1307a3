"""dev's own language model, by a tiny random one of its true class."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from transformers import (
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    MistralConfig,
    PixtralImageProcessor,
    PixtralProcessor,
    PixtralVisionConfig,
    PreTrainedTokenizerFast,
)

from licht.core.errors import InvalidCheckpoint, NotAvailable
from licht.upsample.ask import DRAW_SYSTEM, MAX_NEW_TOKENS, upsample
from licht.upsample.local import LocalUpsampler
from tests.support import models
from tests.support.pictures import picture

MARKS = ["<unk>", "<s>", "</s>", "<pad>", "[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]"]
EYES = ["[IMG]", "[IMG_BREAK]", "[IMG_END]"]
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'system' %}[SYSTEM_PROMPT]"
    "{{ message['content'][0]['text'] }}[/SYSTEM_PROMPT]{% else %}[INST]{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}[IMG]{% else %}{{ part['text'] }}{% endif %}{% endfor %}[/INST]{% endif %}{% endfor %}"
)


@pytest.fixture(scope="module")
def dev(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The text encoder and the processor of a dev model."""
    folder = tmp_path_factory.mktemp("dev")
    vocabulary = {token: n for n, token in enumerate([*MARKS, *EYES, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(tokenizer_models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        additional_special_tokens=[*MARKS[4:], *EYES],
    )
    eye = PixtralImageProcessor(patch_size=14, size={"longest_edge": 56})
    PixtralProcessor(
        eye,
        fast,
        patch_size=14,
        spatial_merge_size=2,
        chat_template=TEMPLATE,
        image_token="[IMG]",
        image_break_token="[IMG_BREAK]",
        image_end_token="[IMG_END]",
    ).save_pretrained(folder / "tokenizer")
    text = MistralConfig(
        vocab_size=300,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=3,
    )
    vision = PixtralVisionConfig(
        hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14
    )
    torch.manual_seed(0)
    model = Mistral3ForConditionalGeneration(
        Mistral3Config(
            text_config=text, vision_config=vision, image_token_index=vocabulary["[IMG]"], spatial_merge_size=2
        )
    )
    model.save_pretrained(folder / "text_encoder")
    return folder


def opened(dev: Path, seed: int = 0) -> LocalUpsampler:
    return LocalUpsampler(dev / "text_encoder", dev / "tokenizer", "cpu", seed)


@pytest.mark.slow
def test_the_whole_language_model_answers_and_the_seed_decides(dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licht.upsample.local.MAX_NEW_TOKENS", 24)
    state = torch.random.get_rng_state()
    one, same, other = (opened(dev, seed).answer(DRAW_SYSTEM, "a cat", ()) for seed in (1, 1, 2))
    assert one == same != other
    assert 0 < len(one.encode()) <= 24 * 4
    assert torch.equal(state, torch.random.get_rng_state())


@pytest.mark.slow
def test_its_eye_sees_the_references(dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licht.upsample.local.MAX_NEW_TOKENS", 24)
    model = opened(dev)
    shown = [model.answer("s", "x", [picture(60, 60, seed)]) for seed in (0, 0, 5)]
    assert shown[0] == shown[1]
    model._load()
    inputs = model._inputs("s", "[IMG]x", [picture(28, 56), picture(28, 28)])
    # 56x56 px side by side are 2x2 merged patches of 28 px, each row ended by a mark of its own
    assert (inputs["input_ids"] == len(MARKS)).sum() == 4
    assert inputs["pixel_values"].dtype == torch.bfloat16
    seen = [model._inputs("s", "x", [picture(56, 56, seed)])["pixel_values"] for seed in (0, 5)]
    assert not torch.equal(seen[0], seen[1])
    model.close()
    assert model._model is None


@pytest.mark.slow
def test_an_answer_that_loses_a_quoted_text_ends_in_the_original(dev: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("licht.upsample.local.MAX_NEW_TOKENS", 8)
    made = upsample('a sign "OPEN"', (), opened(dev))
    assert made.prompt == 'a sign "OPEN"'
    assert len(made.warnings) == 1
    assert MAX_NEW_TOKENS == 512


def test_only_devs_language_model_can_upsample(dev: Path, tmp_path: Path) -> None:
    klein = models.write_folder(tmp_path / "klein", models.Recipe())
    for folder in (klein / "text_encoder", tmp_path):
        with pytest.raises(NotAvailable, match="no language model that can upsample"):
            LocalUpsampler(folder, dev / "tokenizer", "cpu")


@pytest.mark.slow
def test_a_broken_language_model_is_one_line(dev: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(dev, tmp_path / "dev"))
    weights = next((folder / "text_encoder").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(InvalidCheckpoint, match="cannot be read; copy both folders again"):
        opened(folder).answer("s", "x", ())
    assert json.loads((folder / "text_encoder" / "config.json").read_text())["model_type"] == "mistral3"
