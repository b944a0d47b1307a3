"""Model folders whose JSON says anything: the answer is a model that is understood, or one line."""

import copy as copies
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from licht.checkpoint.folder import ModelFiles, read_folder
from licht.core.errors import LichtError
from licht.core.sizes import check_size
from licht.engine.prompts import PromptTokenizer
from licht.model.variants import Kind
from tests.support import models

FILES = {
    "licht.json": models.describe(Kind.KLEIN, trained_sizes=[[64, 64]], template="x{prompt}"),
    "model_index.json": {"_class_name": "Flux2KleinPipeline", "is_distilled": True},
    "transformer/config.json": {
        "axes_dims_rope": [4, 4, 4, 4],
        "num_layers": 2,
        "guidance_embeds": False,
        "rope_theta": 9,
    },
    "vae/config.json": {"norm_num_groups": 4, "batch_norm_eps": 1e-4},
    "text_encoder/config.json": models.tower_json(models.QWEN),
    "tokenizer/tokenizer_config.json": {
        "padding_side": "left",
        "pad_token": {"content": "<think>"},
        "bos_token": "<s>",
    },
}
VALUES: tuple[object, ...] = (
    *(None, True, False, -1, 0, 1, 2, 3, 16, 2.5, 2**40, 10**400, float("nan"), float("inf"), 1e-400),
    *(
        "",
        "1",
        "klein",
        "dev",
        "x" * 200,
        "\ud800",
        "\0",
        "{{ 1 / 0 }}",
        [],
        {},
        [[]],
        [1, 2],
        [[64, 10**9]],
        {"content": 1},
    ),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = models.write_folder(tmp_path_factory.mktemp("fuzzed") / "tiny", models.Recipe())
    for name, content in FILES.items():
        models.write(made / name, content)
    return made


def places(value: object, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a JSON document."""
    yield above
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in items:
        yield from places(inner, (*above, key))


def replaced(document: object, place: tuple[Any, ...], value: object) -> object:
    """The document with another value in one place."""
    if not place:
        return value
    changed: Any = copies.deepcopy(document)
    inner = changed
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return changed


def understood(folder: Path) -> ModelFiles | LichtError:
    try:
        files = read_folder(folder)
        PromptTokenizer(files.parts.tokenizer, files.variant.text, files.template)(["a cat"])
    except LichtError as error:
        return error
    return files


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    change=st.sampled_from([(name, place) for name, content in FILES.items() for place in places(content)]),
    value=st.sampled_from(VALUES),
)
def test_whatever_is_said_is_understood_or_refused(
    folder: Path, change: tuple[str, tuple[Any, ...]], value: object
) -> None:
    name, place = change
    path = folder / name
    before = path.read_bytes()
    path.write_text(json.dumps(replaced(FILES[name], place, value)), encoding="utf-8")
    try:
        outcome = understood(folder)
    finally:
        path.write_bytes(before)
    if isinstance(outcome, LichtError):
        assert outcome.exit_code == 2
        assert outcome.message.isprintable()
        assert len(outcome.message) > 20
    else:
        assert check_size(outcome.variant.default_size) == outcome.variant.default_size
        assert outcome.variant.transformer.parameters == models.TRANSFORMER.parameters
        assert outcome.variant.text.context_dim == 48


def test_the_unchanged_folder_is_understood(folder: Path) -> None:
    assert isinstance(understood(folder), ModelFiles)
