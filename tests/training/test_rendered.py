from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from licht.checkpoint.assets import built_in
from licht.core.errors import InvalidSettings
from licht.recipes import RECIPES
from licht.training.assemble import find_autoencoder
from licht.training.config import Recipe, Source, Stream, difference, override
from licht.training.flow import CaptionDraw
from licht.training.rendered import RenderedRows, mixed_captions, mixed_pictures
from licht.training.store import StreamStore
from licht.training.tokenizer import CaptionEncoder, train_tokenizer

STREAMS = (
    Stream("pictures", Source.PICTURE, ("one", "word"), rows=4, weight=1.0, captions=2),
    Stream("wide", Source.PICTURE, ("two",), rows=2, weight=1.0, size_px=(160, 96), captions=2),
    Stream("edits", Source.EDIT, ("recolor", "camera"), rows=2, weight=1.0, references=1, captions=2),
    Stream("pairs", Source.TASK, ("subjects",), rows=2, weight=1.0, references=2, reference_px=64, captions=2),
)


@pytest.fixture(scope="module")
def encoder() -> CaptionEncoder:
    return CaptionEncoder(train_tokenizer(mixed_captions(0, 400), 700), 96)


@pytest.fixture(scope="module")
def rows(encoder: CaptionEncoder) -> RenderedRows:
    return RenderedRows(find_autoencoder(RECIPES["nano_smoke"](), built_in()), encoder, "train", seed=0)


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.name)
def test_rows_are_the_same_in_any_call_and_come_back_from_disk(
    stream: Stream, rows: RenderedRows, tmp_path: Path
) -> None:
    latents, references, ids = rows(stream, 0, 2)
    again = rows(stream, 1, 1)
    assert latents.shape == (2, stream.grid[0] * stream.grid[1], 128)
    assert np.allclose(latents[1:].astype(float), again[0].astype(float), atol=2e-2)
    assert np.array_equal(ids[1:], again[2])
    store = StreamStore(tmp_path, stream, 128, 96)
    store.fill(rows, 2, lambda name, done, total: None)
    read = StreamStore(tmp_path, stream, 128, 96).rows(torch.tensor([stream.captions + 1, 0]))
    assert torch.equal(read.x0_BLC[1], torch.from_numpy(latents[0]).float())
    assert read.ids_BT.tolist() == [ids[1, 1].tolist(), ids[0, 0].tolist()]
    if stream.references:
        assert read.references_BRC is not None
        assert read.references_BRC.shape[1] == stream.references * (stream.reference_px // 16) ** 2
        assert torch.equal(read.references_BRC[1], torch.from_numpy(references[0]).float())
    else:
        assert read.references_BRC is None


def test_a_stream_may_go_on_where_another_ended(rows: RenderedRows) -> None:
    first, second = STREAMS[0], replace(STREAMS[0], name="more", skip=3)
    assert rows.row(second, 0) == rows.row(first, 3)
    assert rows.row(second, 1) == rows.row(replace(first, rows=5), 4)


def test_a_kind_that_stands_several_times_shows_another_each_time(rows: RenderedRows) -> None:
    stream = replace(STREAMS[0], kinds=("one", "two", "one"))
    shown = [rows.row(stream, row)[0] for row in range(6)]
    assert len(set(shown)) == 6
    alone = replace(stream, kinds=("one",))
    assert [shown[0], shown[2], shown[3], shown[5]] == [rows.row(alone, row)[0] for row in range(4)]
    assert shown[1::3] == [rows.row(replace(stream, kinds=("two",)), row)[0] for row in range(2)]


def test_rows_that_were_prepared_when_kinds_repeated_themselves_are_refused(tmp_path: Path) -> None:
    once, twice = (replace(STREAMS[0], name=kinds[0], kinds=kinds) for kinds in (("one", "two"), ("two", "two")))
    for stream in (once, twice):
        StreamStore(tmp_path, stream, 128, 96, {"seed": 0})
    StreamStore(tmp_path, once, 128, 96, {"seed": 0, "repeats": "apart"})
    with pytest.raises(InvalidSettings, match="repeats: 'apart' here, None there"):
        StreamStore(tmp_path, twice, 128, 96, {"seed": 0, "repeats": "apart"})


def test_a_stream_whose_references_never_come_is_refused_by_its_reason(rows: RenderedRows) -> None:
    with pytest.raises(InvalidSettings, match="none of 64 tasks of kind floor has 5 references, as pairs wants"):
        rows.row(replace(STREAMS[3], kinds=("floor",), references=5), 0)


def test_latents_are_about_white(rows: RenderedRows) -> None:
    latents, _, _ = rows(STREAMS[0], 0, 4)
    assert 0.5 < latents.astype(float).std() < 2.0


def test_a_folder_of_another_stream_is_refused(rows: RenderedRows, tmp_path: Path) -> None:
    StreamStore(tmp_path, STREAMS[0], 128, 96)
    with pytest.raises(InvalidSettings, match=r"something else \(channels: 64 here, 128 there"):
        StreamStore(tmp_path, STREAMS[0], 64, 96)


def test_upper_case_words_fall_into_letters(encoder: CaptionEncoder) -> None:
    tokens = encoder._tokenizer.encode('a red cube, the word "LICHT" on top').tokens
    assert [token for token in tokens if token.isascii() and token.isupper()] == list("LICHT")
    assert "Ġcube" in tokens


def test_pictures_for_the_autoencoder_are_the_same_in_any_range() -> None:
    render = mixed_pictures(0)
    assert torch.equal(render(8, 3)[1], render(9, 1)[0])


def test_overrides_reach_nested_fields_and_name_what_is_unknown() -> None:
    recipe: Recipe = RECIPES["nano_smoke"]()
    changed = override(
        recipe, {"optim.steps": "7", "flow.shift": "3", "optim.compile": "true", "flow.shape": "plateau"}
    )
    assert (changed.optim.steps, changed.flow.shift, changed.optim.compile) == (7, 3.0, True)
    assert difference(changed.as_json(), recipe.as_json()) == [
        "flow.shape: 'plateau' here, 'logit_normal' there",
        "flow.shift: 3.0 here, 2.2 there",
        "optim.compile: True here, False there",
        "optim.steps: 7 here, 400 there",
    ]
    for path, text, message in (
        ("optim.step", "7", "'optim.step' is unknown; here there are steps, batch"),
        ("seed.deep", "7", "seed has no parts"),
        ("optim.steps", "many", "optim.steps is 'many'; expected a whole number"),
        ("optim.steps", "1.5", "optim.steps is 1.5; expected a whole number"),
        ("flow.shape", "flat", "flow.shape is 'flat'; expected one of logit_normal, plateau, uniform"),
    ):
        with pytest.raises(InvalidSettings, match=message.replace(".", r"\.")):
            override(recipe, {path: text})


def test_a_recipe_without_its_autoencoder_is_refused(tmp_path: Path) -> None:
    recipe = override(RECIPES["nano_base"](), {"autoencoder_from": str(tmp_path)})
    with pytest.raises(InvalidSettings, match="holds no vae/ and no checkpoint"):
        find_autoencoder(recipe, built_in())


def test_captions_of_a_batch_are_about_equally_long_and_each_has_the_same_chance() -> None:
    lengths = torch.tensor([5, 40, 90, 48, 60, 7, 49, 92, 0])
    draw, generator = CaptionDraw(lengths, step=16, full=92), torch.Generator().manual_seed(0)
    rounded = torch.tensor([16, 48, 92, 48, 64, 16, 64, 92, 16])
    counts, cuts = torch.zeros(9), []
    for _ in range(1600):
        numbers, cut = draw.draw(16, 0.25, generator)
        assert int(lengths[numbers].max()) <= cut
        (group,) = set(rounded[numbers].tolist())
        assert cut in {group, 92}
        counts += torch.bincount(numbers, minlength=9)
        cuts.append(cut)
    assert counts.div(counts.sum()).sub(1 / 9).abs().max() < 0.015
    assert cuts.count(16) / 1600 == pytest.approx(3 / 9 * 0.75, abs=0.05)


@pytest.mark.parametrize("lengths", [[3, 4, 5], [60, 70]])
def test_captions_that_are_all_short_or_all_long_are_drawn_as_well(lengths: list[int]) -> None:
    numbers, cut = CaptionDraw(torch.tensor(lengths), 48, 96).draw(32, 0.0, torch.Generator().manual_seed(0))
    assert set(numbers.tolist()) == set(range(len(lengths)))
    assert cut == (48 if lengths[0] < 48 else 96)
