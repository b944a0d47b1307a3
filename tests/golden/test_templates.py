"""The official templates, letter by letter, with and without a chat template in the folder."""

from dataclasses import replace
from pathlib import Path

import pytest

from licht.core.errors import InvalidCheckpoint
from licht.engine.prompts import PromptTokenizer
from licht.evaluation.compare import PROMPTS
from licht.evaluation.golden import ReferenceModel
from tests.golden.models import without_chat_template
from tests.golden.sections import FLOAT32, Models

KLEIN = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
DEV = (
    "<s>[SYSTEM_PROMPT]You are an AI that reasons about image descriptions. You give structured responses focusing on "
    "object relationships, object\nattribution and actions without speculation.[/SYSTEM_PROMPT][INST]{prompt}[/INST]"
)


@pytest.mark.parametrize(("kind", "template"), [("klein", KLEIN), ("dev", DEV)])
@pytest.mark.parametrize("prompt", [*PROMPTS, "braces"])
@pytest.mark.parametrize("own", [True, False], ids=["chat template", "no chat template"])
def test_the_template_is_the_official_one(
    kind: str, template: str, prompt: str, own: bool, built: Models, tmp_path: Path
) -> None:
    files = built.files(kind)
    folder = files.parts.tokenizer if own else without_chat_template(files.parts.tokenizer, tmp_path / "tokenizer")
    text = {**PROMPTS, "braces": "{} {prompt} {{ 1 + 1 }} {% if %} %s"}[prompt]
    before, after = template.split("{prompt}")
    # the mark for a picture would be read as one, so it is taken out of what Mistral reads
    inside = text.replace("[IMG]", "") if kind == "dev" else text
    assert PromptTokenizer(folder, files.variant.text).text(text) == before + inside + after


@pytest.mark.parametrize("kind", ["klein", "dev"])
def test_both_ways_give_the_same_ids(kind: str, built: Models, tmp_path: Path) -> None:
    files = built.files(kind)
    bare = without_chat_template(files.parts.tokenizer, tmp_path / "tokenizer")
    templates = [PromptTokenizer(folder, files.variant.text) for folder in (files.parts.tokenizer, bare)]
    for prompt in PROMPTS.values():
        chat, own = (tokenizer([prompt]) for tokenizer in templates)
        assert chat.ids_BL.equal(own.ids_BL)
        assert chat.attended_BL.equal(own.attended_BL)


@pytest.mark.parametrize(("kind", "side"), [("klein", "right"), ("dev", "left")])
def test_prompts_are_padded_and_cut_to_the_official_length(kind: str, side: str, built: Models) -> None:
    files = built.files(kind)
    tokenizer = PromptTokenizer(files.parts.tokenizer, files.variant.text)
    short, long = tokenizer([PROMPTS["short"]]), tokenizer([PROMPTS["long"]])
    count = short.lengths[0]
    padding = short.attended_BL[0, :-count] if side == "left" else short.attended_BL[0, count:]

    assert short.ids_BL.shape == (1, 512)
    assert not padding.any()
    assert int(short.attended_BL.sum()) == count < 512
    assert bool(long.attended_BL.all())
    assert long.lengths[0] > 512
    begins = tokenizer([PROMPTS["long"][:200]])
    start = begins.ids_BL[0][begins.attended_BL[0]][:30]
    assert long.ids_BL[0, :30].equal(start)  # the beginning is kept, the end is cut


def test_a_template_that_refuses_is_one_line(built: Models, tmp_path: Path) -> None:
    files = built.files("klein")
    folder = without_chat_template(files.parts.tokenizer, tmp_path / "tokenizer")
    (folder / "chat_template.jinja").write_text("{{ raise_exception('no user turns here') }}", "utf-8")
    with pytest.raises(InvalidCheckpoint, match="no user turns here"):
        PromptTokenizer(folder, files.variant.text)


@pytest.mark.parametrize(
    "template",
    [
        "{{ bos_token }}{{ eos_token }}{{ pad_token }}{{ unk_token }}{{ messages[0].content }}",
        "{{ strftime_now('%Y') }} {{ messages[0]['content'] | upper }}",
        "{%- for m in messages %}\n  {% if loop.first %}\n    {{ m.content | tojson }}\n  {% endif %}\n{%- endfor %}\n",
        "{% for i in range(9) %}{% if i == 3 %}{% break %}{% endif %}{{ i }}{% endfor %}{{ messages[-1].content }}",
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }} {{ messages[0].content }}",
        "{% if tools is not none %}tools{% endif %}{% if documents %}documents{% endif %}{{ messages[0].content }}",
        "{{ add_generation_prompt }} {{ enable_thinking }} {{ messages[0].content }}",
    ],
)
def test_chat_templates_render_as_in_the_reference(template: str, built: Models, tmp_path: Path) -> None:
    files = built.files("klein")
    folder = without_chat_template(files.parts.tokenizer, tmp_path / "tokenizer")
    (folder / "chat_template.jinja").write_text(template, "utf-8")
    turned = replace(files, parts=replace(files.parts, tokenizer=folder))
    theirs = ReferenceModel(turned, FLOAT32).prompt_texts(PROMPTS)
    tokenizer = PromptTokenizer(folder, files.variant.text)
    assert {name: tokenizer.text(prompt) for name, prompt in PROMPTS.items()} == theirs
