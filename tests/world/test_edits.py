import re
from dataclasses import replace

import pytest
import torch

from licht.core.errors import InvalidRequest
from licht.world.edits import EDIT_KINDS, EditKind, change_mask, change_weight, sample_edit
from licht.world.heldout import shows_held_out
from licht.world.labels import labels
from licht.world.layout import is_clear
from licht.world.maps import render_maps
from licht.world.render import render
from licht.world.sample import sample_scene
from licht.world.scene import Character, Thing

COUNT = 12
EDITS = {kind: [sample_edit(kind, 41, index) for index in range(COUNT)] for kind in EDIT_KINDS}


def test_the_same_arguments_give_the_same_edit() -> None:
    assert sample_edit("move", 41, 3) == EDITS["move"][3]
    assert sample_edit("move", 42, 3) != EDITS["move"][3]


def test_unknown_kinds_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="recolor"):
        sample_edit("bend", 0, 0)  # type: ignore[arg-type] # what is tested


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_both_scenes_are_clear_and_differ(kind: EditKind) -> None:
    for edit in EDITS[kind]:
        assert edit.before != edit.after
        assert is_clear(edit.before)
        assert is_clear(edit.after)
        assert not any(shows_held_out(subject) for subject in (*edit.before.subjects, *edit.after.subjects))
        assert 1 <= len(set(edit.instructions)) == len(edit.instructions) <= 4
        for text in edit.instructions:
            bare = re.sub(r'"[A-Z0-9]+"', "", text)
            assert bare == bare.lower()
            assert "{" not in text


@pytest.mark.parametrize("kind", [kind for kind in EDIT_KINDS if kind != "camera"])
def test_the_camera_stays(kind: EditKind) -> None:
    assert all(edit.before.camera == edit.after.camera for edit in EDITS[kind])


FIELDS = {
    "recolor": ("subjects",),
    "restyle": ("subjects",),
    "resize": ("subjects",),
    "move": ("subjects",),
    "add": ("subjects",),
    "remove": ("subjects",),
    "replace": ("subjects",),
    "relight": ("light",),
    "floor": ("floor",),
    "text": ("lettering",),
    "camera": ("camera",),
}


@pytest.mark.parametrize("kind", EDIT_KINDS)
def test_nothing_else_changes(kind: EditKind) -> None:
    for edit in EDITS[kind]:
        same = replace(edit.before, **{name: getattr(edit.after, name) for name in FIELDS[kind]})
        assert same == edit.after
        if FIELDS[kind] == ("subjects",) and len(edit.before.subjects) == len(edit.after.subjects):
            pairs = zip(edit.before.subjects, edit.after.subjects, strict=True)
            assert [index for index, (old, new) in enumerate(pairs) if old != new] == [edit.subject]


def test_added_and_removed_subjects_are_one_more_and_one_less() -> None:
    assert all(len(edit.after.subjects) == len(edit.before.subjects) + 1 for edit in EDITS["add"])
    assert all(len(edit.after.subjects) == len(edit.before.subjects) - 1 for edit in EDITS["remove"])


@pytest.mark.parametrize("kind", ["recolor", "restyle", "resize", "add", "remove", "replace", "text"])
def test_the_mask_covers_the_change_and_spares_the_rest(kind: EditKind) -> None:
    edits = EDITS[kind][:6]
    before, after = render([edit.before for edit in edits], 128, 128), render([edit.after for edit in edits], 128, 128)
    mask = change_mask(before, after)
    assert bool((before == after)[~mask].all())
    assert bool(mask.flatten(1).any(1).all())
    assert float(mask.float().mean()) < 0.5  # shadows and mirrors reach far, the rest of the studio stays
    for row, edit in enumerate(edits):
        if edit.subject is None:
            continue
        scene = edit.after if kind == "add" else edit.before
        own = render_maps([scene], 128, 128).instance_BHW[0] == edit.subject
        # A colour changes nearly all of a thing (what is mirrored or dark may stay), but of a character one part; a
        # pattern or a material changes some of it.
        part = isinstance(scene.subjects[edit.subject], Character) and kind == "recolor"
        assert float(mask[row][own].float().mean()) > (0.03 if part else 0.15 if kind == "restyle" else 0.6)


def test_relighting_changes_most_of_the_picture() -> None:
    edits = EDITS["relight"][:4]
    before, after = (render([getattr(edit, name) for edit in edits], 64, 64) for name in ("before", "after"))
    assert float(change_mask(before, after).float().mean()) > 0.02


def test_a_grown_mask_holds_the_mask() -> None:
    mask = torch.zeros(1, 9, 9, dtype=torch.bool)
    mask[0, 4, 4] = True
    assert int(change_weight(mask, 2).sum()) == 25
    assert bool(change_weight(mask, 1)[mask].all())


def test_moves_end_where_they_say() -> None:
    checked = 0
    for edit in (sample_edit("move", 43, index) for index in range(40)):
        assert edit.subject is not None
        text = edit.instructions[0]
        place = {label.index: label for label in labels(edit.after, 128, 128)}
        mover = place[edit.subject]
        if match := re.search(r" (?:be )?(?:placed )?(to the left|to the right|in the middle)(?:$|,| and)", text):
            assert mover.side == {"to the left": "left", "to the right": "right", "in the middle": "middle"}[match[1]]
            checked += 1
        elif match := re.search(r"to the (left|right) of", text):
            others = [label for label in place.values() if label.index != edit.subject]
            beside = [label.center[0] for label in others]
            assert (mover.center[0] > min(beside)) if match[1] == "right" else (mover.center[0] < max(beside))
            checked += 1
    assert checked > 15


def test_a_new_word_is_in_quotes_and_on_the_picture() -> None:
    for edit in EDITS["text"]:
        if edit.before.lettering is None or edit.after.lettering is None:
            continue
        fresh = set(edit.after.lettering.lines) - set(edit.before.lettering.lines)
        assert all(f'"{word}"' in text for word in fresh for text in edit.instructions)


def test_instructions_single_out_one_subject() -> None:
    for kind in ("recolor", "resize", "remove"):
        for edit in EDITS[kind]:
            assert edit.subject is not None
            subject = edit.before.subjects[edit.subject]
            if not isinstance(subject, Thing):
                continue
            for text in edit.instructions:
                named = re.search(
                    r"the ((?:small|large|little|big|matte|shiny|glossy|metal|metallic) )?(\w+) object", text
                )
                if named and named[2] == subject.color:
                    same = [s for s in edit.before.subjects if isinstance(s, Thing) and s.color == subject.color]
                    assert len(same) == 1, text


def test_edits_of_the_test_split_print_test_words() -> None:
    for index in range(10):
        edit = sample_edit("text", 3, index, split="test")
        base = sample_scene("word", 3, index, split="test").lettering
        assert base is not None
        assert edit.before != edit.after
