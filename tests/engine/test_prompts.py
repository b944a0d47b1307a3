import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from licht.core.errors import InvalidCheckpoint
from licht.engine.prompts import DEV_SYSTEM_MESSAGE, PromptTokenizer
from licht.model.variants import Kind, TextConfig
from tests.support import models

KLEIN, DEV = replace(models.TEXT, length=80), replace(models.MISTRAL_TEXT, length=300)
CHAT = "{% for m in messages %}[{{ m.role }}|{{ m.content }}]{% endfor %}{% if add_generation_prompt %}>{% endif %}"


def klein(folder: Path, text: TextConfig = KLEIN, template: str | None = None) -> PromptTokenizer:
    return PromptTokenizer(folder, text, template)


def configure(folder: Path, **settings: object) -> None:
    models.write(folder / "tokenizer_config.json", settings)


def test_the_official_templates(tokenizers: Mapping[Kind, Path]) -> None:
    assert klein(tokenizers[Kind.KLEIN]).text("a {cat}") == (
        "<|im_start|>user\na {cat}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    )
    assert PromptTokenizer(tokenizers[Kind.DEV], DEV).text("a [IMG]{cat}") == (
        f"<s>[SYSTEM_PROMPT]{DEV_SYSTEM_MESSAGE}[/SYSTEM_PROMPT][INST]a {{cat}}[/INST]"
    )
    assert "object\nattribution" in DEV_SYSTEM_MESSAGE


def test_klein_is_padded_on_the_right_and_dev_on_the_left(tokenizers: Mapping[Kind, Path]) -> None:
    tokens = klein(tokenizers[Kind.KLEIN])(["abc", ""])
    assert tokens.ids_BL.shape == tokens.attended_BL.shape == (2, 80)
    assert tokens.lengths == (tokens.lengths[1] + 3, tokens.lengths[1])
    for row, length in enumerate(tokens.lengths):
        assert tokens.attended_BL[row].tolist() == [True] * length + [False] * (80 - length)
        assert set(tokens.ids_BL[row, length:].tolist()) == {0}
    (length,) = PromptTokenizer(tokenizers[Kind.DEV], DEV)(["abc"]).lengths
    tokens = PromptTokenizer(tokenizers[Kind.DEV], DEV)(["abc"])
    assert tokens.attended_BL[0].tolist() == [False] * (300 - length) + [True] * length
    assert set(tokens.ids_BL[0, : 300 - length].tolist()) == {3}
    assert tokens.ids_BL[0, -1] == 5  # [/INST]


def test_the_folder_may_pad_on_the_other_side(tokenizers: Mapping[Kind, Path]) -> None:
    folder = tokenizers[Kind.KLEIN]
    right = klein(folder)(["abc"])
    configure(folder, padding_side="left", pad_token={"content": "<think>", "special": True})
    left = klein(folder)(["abc"])
    (length,) = left.lengths
    assert left.ids_BL[0, 80 - length :].tolist() == right.ids_BL[0, :length].tolist()
    assert set(left.ids_BL[0, : 80 - length].tolist()) == {3}


def test_special_tokens_are_one_token_and_letters_are_letters(tokenizers: Mapping[Kind, Path]) -> None:
    tokens = klein(tokenizers[Kind.KLEIN])(["ab"])
    ids = tokens.ids_BL[0, : tokens.lengths[0]].tolist()
    assert ids[0] == 1
    assert ids.count(2) == 1
    assert len(ids) == len("<user\nab<\n<assistant\n<\n\n<\n\n")


def test_a_long_prompt_is_cut_and_its_length_is_known(tokenizers: Mapping[Kind, Path]) -> None:
    tokens = klein(tokenizers[Kind.KLEIN])(["x" * 500])
    assert tokens.ids_BL.shape == (1, 80)
    assert tokens.attended_BL.all()
    assert tokens.lengths[0] > 500


@pytest.mark.parametrize(
    "prompt", ["", "\n\t", "🦊 Fluß 一只猫", "{{ 7 * 7 }}{% raw %}", "{prompt}", "\u202e\ufeff", "x" * 9999]
)
def test_any_text_is_a_prompt(tokenizers: Mapping[Kind, Path], prompt: str) -> None:
    for template in (None, "say {prompt}"):
        tokenizer = klein(tokenizers[Kind.KLEIN], template=template)
        assert prompt in tokenizer.text(prompt)
        assert tokenizer([prompt]).ids_BL.shape == (1, 80)


def test_a_template_of_licht_json_comes_first_then_the_folders_own(tokenizers: Mapping[Kind, Path]) -> None:
    folder = tokenizers[Kind.KLEIN]
    configure(folder, chat_template=CHAT.replace("|", "~"), bos_token="<s>")
    assert klein(folder).text("{{ x }}") == "[user~{{ x }}]>"
    (folder / "chat_template.jinja").write_text(CHAT, encoding="utf-8")
    assert klein(folder).text("{{ x }}") == "[user|{{ x }}]>"
    assert klein(folder, template="<{prompt}>").text("{{ x }}") == "<{{ x }}>"


def test_a_chat_template_knows_what_others_have(tokenizers: Mapping[Kind, Path]) -> None:
    folder = tokenizers[Kind.DEV]
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role }}={{ m.content[0].text }};{% endfor %}"
        "{% if add_generation_prompt %}>{% endif %}{% if tools %}tools{% endif %}",
        encoding="utf-8",
    )
    configure(folder, bos_token={"content": "<s>"})
    assert PromptTokenizer(folder, DEV).text("x") == f"<s>system={DEV_SYSTEM_MESSAGE};user=x;"


@pytest.mark.parametrize(
    "source",
    [
        "{% for %}",
        "{{ undefined.attribute }}",
        "{{ 1 / 0 }}",
        "{{ messages + 1 }}",
        "{{ raise_exception('no') }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(999999999) %}x{% endfor %}",
        "{{ messages.append(1) }}",
        "{{ '\\ud800' }}",
    ],
)
def test_a_broken_or_hostile_chat_template_is_refused(tokenizers: Mapping[Kind, Path], source: str) -> None:
    (tokenizers[Kind.KLEIN] / "chat_template.jinja").write_text(source, encoding="utf-8")
    with pytest.raises(InvalidCheckpoint, match=r"the chat template of the tokenizer cannot be used .*; repair it, or"):
        klein(tokenizers[Kind.KLEIN])


def test_a_chat_template_that_fails_only_for_some_prompts_is_refused_then(tokenizers: Mapping[Kind, Path]) -> None:
    source = "{% if 'cat' in messages[0].content %}{{ raise_exception('no cats') }}{% endif %}x"
    (tokenizers[Kind.KLEIN] / "chat_template.jinja").write_text(source, encoding="utf-8")
    tokenizer = klein(tokenizers[Kind.KLEIN])
    assert tokenizer.text("dog") == "x"
    with pytest.raises(InvalidCheckpoint, match=r"cannot be used \(no cats\)"):
        tokenizer.text("a cat")


@pytest.mark.parametrize("template", ["", "no place", "{prompt}{prompt}"])
def test_a_template_without_exactly_one_place_is_refused(tokenizers: Mapping[Kind, Path], template: str) -> None:
    with pytest.raises(
        InvalidCheckpoint, match=re.escape(f"the template {template!r} must hold {{prompt}} exactly once")
    ):
        klein(tokenizers[Kind.KLEIN], template=template)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"padding_side": "middle"}, "padding_side 'middle' is unknown; expected left or right"),
        ({"padding_side": 1}, "padding_side 1 is unknown"),
        ({"pad_token": "<nothing>"}, "the tokenizer has no padding token '<nothing>'; check tokenizer_config.json"),
        ({"pad_token": {"content": 3}}, "the tokenizer has no padding token ''"),
        ({"pad_token": {}}, "the tokenizer has no padding token ''"),
        ({"pad_token": 5}, "the tokenizer has no padding token ''"),
    ],
)
def test_unusable_settings_are_refused(
    tokenizers: Mapping[Kind, Path], settings: dict[str, object], message: str
) -> None:
    configure(tokenizers[Kind.KLEIN], **settings)
    with pytest.raises(InvalidCheckpoint, match=re.escape(message)):
        klein(tokenizers[Kind.KLEIN])


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"model": {"type": "Unknown"}}', "\0", '{"version": "1.0", "model": 1}']
)
def test_a_broken_tokenizer_is_refused(tokenizers: Mapping[Kind, Path], text: str) -> None:
    path = tokenizers[Kind.KLEIN] / "tokenizer.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidCheckpoint, match=re.escape(f"{path} is not a usable tokenizer (")):
        klein(tokenizers[Kind.KLEIN])


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"tokenizer\.json is not a usable tokenizer \(No such file"):
        klein(tmp_path)


@pytest.mark.parametrize("name", ["tokenizer_config.json", "chat_template.jinja"])
def test_settings_that_are_no_text_are_refused(tokenizers: Mapping[Kind, Path], name: str) -> None:
    (tokenizers[Kind.KLEIN] / name).write_bytes(b"\xff\xfe\xff")
    with pytest.raises(InvalidCheckpoint, match=rf"{name} cannot be read .*; copy it again"):
        klein(tokenizers[Kind.KLEIN])


def test_a_tokenizer_of_another_text_model_is_refused(tokenizers: Mapping[Kind, Path]) -> None:
    small = replace(KLEIN, tower=replace(models.QWEN, vocab_size=200))
    with pytest.raises(InvalidCheckpoint, match="has 261 tokens, its text model 200; use the tokenizer of that text"):
        klein(tokenizers[Kind.KLEIN], small)


def test_a_token_beyond_the_embedding_is_refused(tokenizers: Mapping[Kind, Path]) -> None:
    path = tokenizers[Kind.KLEIN] / "tokenizer.json"
    content = json.loads(path.read_text("utf-8"))
    content["model"]["vocab"]["q"] = 5000
    path.write_text(json.dumps(content), encoding="utf-8")
    tokenizer = klein(tokenizers[Kind.KLEIN])
    assert tokenizer(["a"]).ids_BL.max() < 300
    with pytest.raises(InvalidCheckpoint, match="the tokenizer gives token 5000, the text model knows 300"):
        tokenizer(["q"])
