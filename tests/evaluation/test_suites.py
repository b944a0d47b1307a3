import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from licht.checkpoint.assets import built_in
from licht.cli.main import run as command
from licht.core.errors import InvalidRequest
from licht.evaluation import scoring, suite_edits, suite_pictures, suite_words
from licht.evaluation.intervals import mean, share
from licht.evaluation.run import SUITES, run_suite
from licht.evaluation.seen import subject_hex, truth
from licht.evaluation.suites import BOLD, SEED, Bench, Draws, Notebook, Report, Shown
from licht.training.card import Figures, measured_lines
from licht.training.trained import open_autoencoder
from licht.world.captions import Caption
from licht.world.edits import EDIT_KINDS, Edit, sample_edit
from licht.world.sample import KINDS, Kind, sample_scene
from licht.world.scene import Light, Scene, Subject, Thing
from licht.world.tasks import TaskKind
from tests.evaluation.oracle import Oracle, Renderer
from tests.training.runs import autoencoder_run, flow_run

N = 6


def bench_of(oracle: Oracle, scenes: dict[str, Scene], reader: Callable[[Tensor], list[str]] | None = None) -> Bench:
    for scene in scenes.values():
        oracle.show(scene)
    drawer = Renderer(oracle, scenes)
    return Bench(drawer, oracle, reader, None, lambda count: drawer, N, lambda done: None, Notebook())


def picture_scenes() -> dict[str, Scene]:
    asked = [
        *suite_pictures.prompts("one", N),
        *suite_pictures.prompts("two", N),
        *suite_pictures.prompts("relation", N),
        *suite_pictures.prompts("layout", N, "layout"),
        *suite_pictures.prompts("negation", N, "negation"),
        *suite_pictures.prompts("hex", N),
        *suite_pictures.prompts("one", N, pairs="unseen"),
    ]
    return {prompt.told.text: prompt.scene for prompt in asked}


def test_a_perfect_model_has_perfect_figures() -> None:
    report = run_suite("t2i", bench_of(Oracle(), picture_scenes()), "truth")
    assert report.n == N
    for name in ("one_object", "two_objects", "relation", "layout", "negation", "unseen_pairs", "hex_found"):
        assert report.rows[name].value == 1.0, name
        assert report.rows[name].low < 1.0
    for name, row in report.rows.items():
        if name.endswith("_ceiling") and "by_color" not in name:
            if name.startswith("hex_by"):
                assert 0.5 < row.value < 5.0  # light from the other side changes how a colour looks, a little
            else:
                assert row.value == (0.0 if name.startswith("hex_c") else 1.0), name
    assert report.rows["hex_by_pixels"].value == 0.0
    for name in ("one_object_kind", "one_object_material", "two_objects_color", "two_objects_size", "relation_floor"):
        assert report.rows[name].value == report.rows[f"{name}_ceiling"].value == 1.0
        assert report.rows[name].n == report.rows[f"{name}_ceiling"].n
    assert report.rows["two_objects_kind"].n == 2 * report.rows["one_object_kind"].n == 2 * N
    assert report.rows["hex_ciede2000"].value == 0.0
    assert report.rows["unseen_pairs_gap"].value == 0.0


def test_a_model_that_draws_something_else_fails_every_row() -> None:
    wrong = dict(zip(picture_scenes(), [Scene()] * 1000, strict=False))
    report = run_suite("t2i", bench_of(Oracle(), wrong), "wrong")
    for name in ("one_object", "two_objects", "relation", "layout", "negation", "unseen_pairs", "hex_found"):
        assert report.rows[name].value == 0.0, name
    assert math.isnan(report.rows["hex_ciede2000"].value)
    assert math.isnan(report.rows["hex_by_pixels"].value)
    assert report.rows["one_object_kind"].value == report.rows["two_objects_material"].value == 0.0
    assert report.as_json()["rows"]["hex_ciede2000"] == {"value": None, "low": None, "high": None, "n": 0}


def test_colors_by_pixels_tell_how_far_a_wrong_number_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that draws every thing a little redder, and one that draws all of them gray."""

    def painted(change: Callable[[str], str]) -> float:
        scenes = {
            text: replace(
                scene, subjects=tuple(_with_color(each, change(subject_hex(each))) for each in scene.subjects)
            )
            for text, scene in picture_scenes().items()
        }
        return run_suite("t2i", bench_of(Oracle(), scenes), "painted").rows["hex_by_pixels"].value

    def redder(color: str) -> str:
        return f"#{min(int(color[1:3], 16) + 24, 255):02x}{color[3:]}"

    little, much = painted(redder), painted(lambda color: "#808080")
    assert 1.0 < little < 8.0
    assert much > 2 * little


def _with_color(subject: Subject, color: str) -> Subject:
    return replace(subject, color=color) if isinstance(subject, Thing) else subject


def edit_scenes() -> dict[str, Scene]:
    found = {}
    for at in range(len(EDIT_KINDS)):
        edit = sample_edit(EDIT_KINDS[at], SEED, 0, split="test")
        found[edit.instructions[at % len(edit.instructions)]] = edit.after
    return found


def no_lines(picture: Tensor) -> list[str]:
    return []


def test_perfect_edits_are_done_and_leave_the_rest() -> None:
    bench = bench_of(Oracle(), edit_scenes())
    bench = Bench(bench.drawer, bench.judge, None, None, None, len(EDIT_KINDS), lambda done: None, Notebook())
    report = run_suite("edit", bench, "truth")
    assert report.rows["edit_done"].value == report.rows["edit_done_ceiling"].value == 1.0
    assert report.rows["edit_rest_psnr"].value == pytest.approx(70.0)
    assert report.rows["edit_nearer_after"].value == 1.0
    for kind in EDIT_KINDS:
        assert report.rows[f"edit_{kind}"].value == 1.0
        assert report.rows[f"edit_{kind}_ceiling"].value == 1.0
        assert report.rows[f"edit_{kind}"].n == report.rows[f"edit_{kind}_ceiling"].n == 1
    assert report.rows["edit_done"].n == report.n == len(EDIT_KINDS)


def test_the_rest_of_an_edit_can_be_no_better_than_the_autoencoder() -> None:
    autoencoder = open_autoencoder(built_in()["nano"])
    bench = bench_of(Oracle(), {})
    report = run_suite("edit", replace(bench, autoencoder=autoencoder, n=3), "nano")
    assert 15 < report.rows["edit_rest_psnr_ceiling"].value < 60
    assert "edit_rest_psnr_ceiling" not in run_suite("edit", replace(bench, n=3, notebook=Notebook()), "nano").rows


def test_steps_are_compared_with_the_same_pictures_drawn_truly() -> None:
    asked_for = [*suite_pictures.prompts("one", 2), *suite_pictures.prompts("two", 2)]
    scenes = {prompt.told.text: prompt.scene for prompt in asked_for}
    bench, asked = bench_of(Oracle(), scenes), list[int]()
    blank = Renderer(Oracle(), {})

    def at_steps(count: int) -> Draws | None:
        asked.append(count)
        return blank if count == 1 else bench.drawer

    report = run_suite("steps", replace(bench, at_steps=at_steps, n=2), "truth")
    assert asked == list(suite_pictures.STEP_COUNTS)
    for name in ("one_object", "two_objects"):
        assert report.rows[f"{name}_ceiling"].value == 1.0
        for count in asked:
            assert report.rows[f"{name}_{count}_steps"].value == float(count > 1)
    assert len(report.shown) == 2 * 2 * len(asked)


def test_pictures_left_as_they_were_are_no_edits() -> None:
    oracle = Oracle()
    scenes = {}
    for at in range(len(EDIT_KINDS)):
        edit = sample_edit(EDIT_KINDS[at], SEED, 0, split="test")
        scenes[edit.instructions[at % len(edit.instructions)]] = edit.before
    bench = bench_of(oracle, scenes)
    bench = Bench(bench.drawer, oracle, None, None, None, len(EDIT_KINDS), lambda done: None, Notebook())
    report = run_suite("edit", bench, "lazy")
    assert report.rows["edit_done"].value == 0.0
    assert report.rows["edit_nearer_after"].value == 0.0


@pytest.mark.parametrize(
    ("new", "seen_height", "done"),
    [
        (Light("right", "low"), "low", True),
        (Light("right", "low"), "high", False),
        (Light("right", "high"), "low", True),  # the height stays: nothing was asked of it
        (Light("above", "low"), "high", True),
    ],
)
def test_a_new_height_of_the_light_is_judged_where_it_is_told(new: Light, seen_height: str, done: bool) -> None:
    edit = Edit("relight", Scene(light=Light("left", "high")), Scene(light=new), ("light",))
    seen = truth(edit.after)
    picture = torch.zeros(16, 16, 3, dtype=torch.uint8)
    for side, right in ((new.side, done), ("left", False)):
        shown = replace(seen, picture={**seen.picture, "light_side": side, "light_height": seen_height})
        assert suite_edits.edit_done(bench_of(Oracle(), {}), edit, shown, (picture, picture, picture)) == right


def test_references_reach_the_drawer_and_swapped_ones_swap_places() -> None:
    tasks = suite_edits.tasks("subjects", 4, 2)
    swapped = [task.swapped() for task in tasks]
    scenes = {task.instructions[at % len(task.instructions)]: task.target for at, task in enumerate(swapped)}
    bench = bench_of(Oracle(), scenes)
    suite_edits.row(bench, "order_swap", swapped, suite_edits.all_in_place)
    assert bench.notebook.rows["order_swap"].value == 1.0
    suite_edits.row(bench, "many_references", tasks, suite_edits.all_in_place)
    assert bench.notebook.rows["many_references"].value < 0.5  # the drawer keeps drawing the swapped scenes
    drawer = bench.drawer
    assert isinstance(drawer, Renderer)
    assert [len(shown) for shown in drawer.shown[:4]] == [len(task.references) for task in tasks]
    assert torch.equal(drawer.shown[0][0], drawer.shown[4][1])


def test_ten_references_are_shown_small() -> None:
    tasks = suite_edits.tasks("many", 1, 8)
    bench = bench_of(Oracle(), {})
    suite_edits.row(bench, "ten_references", tasks, suite_edits.all_in_place)
    drawer = bench.drawer
    assert isinstance(drawer, Renderer)
    assert len(drawer.shown[0]) >= 8
    assert drawer.shown[0][0].shape == (64, 64, 3)
    assert bench.notebook.rows["ten_references"].value == 0.0
    assert bench.notebook.rows["ten_references_ceiling"].value == 0.0  # nobody showed the oracle these targets


@pytest.fixture
def reads_truth() -> Bench:
    words = suite_words.prompts("word", N, 5)
    scenes = {prompt.told.text: prompt.scene for prompt in [*words, *suite_words.prompts("two_lines", N, 8)]}
    oracle = Oracle()
    texts = {oracle.show(s).numpy().tobytes(): list(s.lettering.lines) for s in scenes.values() if s.lettering}
    return bench_of(oracle, scenes, lambda picture: texts[picture.numpy().tobytes()])


def test_words_are_counted_as_shares_of_what_can_be_read(reads_truth: Bench) -> None:
    report = run_suite("text", reads_truth, "truth")
    for name in ("words", "words_raw", "words_ceiling", "two_lines", "two_lines_raw", "two_lines_ceiling"):
        assert report.rows[name].value == 1.0, name


def test_the_suites_print_every_figure_that_the_project_is_held_to() -> None:
    bench = replace(bench_of(Oracle(), {}, no_lines), autoencoder=open_autoencoder(built_in()["nano"]), n=1)
    printed = set[str]()
    for suite in ("t2i", "edit", "multiref", "text", "vae"):
        printed |= run_suite(suite, replace(bench, notebook=Notebook()), "nothing").as_json()["rows"].keys()
    assert printed >= {
        *("one_object", "two_objects", "relation", "layout", "negation", "words", "two_lines", "hex_ciede2000"),
        *("edit_done", "edit_rest_psnr", "one_reference", "many_references", "ten_references", "order_swap"),
        *("depth_follow", "unseen_pairs_gap", "vae_psnr"),
    }


def test_words_without_a_reader_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs a reader"):
        run_suite("text", bench_of(Oracle(), {}), "blind")


def test_the_autoencoder_that_is_shipped_is_measured() -> None:
    autoencoder = open_autoencoder(built_in()["nano"])
    bench = bench_of(Oracle(), {})
    bench = Bench(bench.drawer, bench.judge, None, autoencoder, None, 8, lambda done: None, Notebook())
    rows = run_suite("vae", bench, "nano").rows
    assert 15 < rows["vae_psnr"].low < rows["vae_psnr"].value < rows["vae_psnr"].high < 60
    assert 0.4 < rows["vae_ssim"].value < 1


def test_the_judge_is_measured_on_true_pictures() -> None:
    oracle = Oracle()
    bench = Bench(Renderer(oracle, {}), oracle, None, None, None, 14, lambda done: None, Notebook())
    blind = run_suite("judge", bench, "oracle").rows
    assert blind["found"].value == 0.0
    assert blind["one_object"].value == blind["two_objects"].value == 0.0
    for at in range(14):
        oracle.show(sample_scene(KINDS[at % len(KINDS)], SEED, at, split="test", pairs="any"))
    for kind in ("one", "two"):
        for prompt in suite_pictures.prompts(kind, 14):
            oracle.show(prompt.scene)
    rows = run_suite("judge", bench, "oracle").rows
    assert all(row.value == 1.0 for row in rows.values())
    assert {"one_object", "two_objects", "found", "kind", "color", "head", "light_side", "all"} <= rows.keys()


def test_the_judge_is_measured_on_decoded_pictures_too() -> None:
    oracle, autoencoder = Oracle(), open_autoencoder(built_in()["nano"])
    bench = Bench(Renderer(oracle, {}), oracle, None, autoencoder, None, 2, lambda done: None, Notebook())
    for prompt in suite_pictures.prompts("one", 2):
        oracle.show(prompt.scene)
    rows = run_suite("judge", bench, "oracle").rows
    assert rows["one_object"].value == 1.0
    assert rows["one_object_decoded"].value == 0.0  # the oracle knows only the very pictures that it was shown


def test_colours_by_number_are_successes_if_they_are_close(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = picture_scenes()
    close = run_suite("t2i", bench_of(Oracle(), scenes), "truth").shown
    assert [one.right for one in close if " hex: " in one.label] == [True] * N
    monkeypatch.setattr(suite_pictures, "subject_hex", lambda subject: "#123456")
    far = run_suite("t2i", bench_of(Oracle(), scenes), "truth").shown
    assert [one.right for one in far if " hex: " in one.label] == [False] * N


@pytest.mark.parametrize(("kind", "least", "columns"), [("subjects", 2, 1), ("many", 8, 4)])
def test_references_are_shown_beside_what_was_drawn_of_them(kind: TaskKind, least: int, columns: int) -> None:
    some = [task for task in suite_edits.tasks(kind, 6, least) if len(task.references) <= 2 * columns][:1]
    bench = bench_of(Oracle(), {some[0].instructions[0]: some[0].target})
    suite_edits.row(bench, "references", some, suite_edits.all_in_place)
    picture, drawer = bench.notebook.shown[0].picture_HWC, bench.drawer
    assert picture.shape == (128, 64 * columns + 128, 3)
    assert isinstance(drawer, Renderer)
    assert torch.equal(picture[:, -128:], drawer.draw(some[0].instructions[0], 0))
    for number, reference in enumerate(drawer.shown[0]):
        top, left = 64 * (number // columns), 64 * (number % columns)
        tile = picture[top : top + 64, left : left + 64].float()
        assert (tile.mean((0, 1)) - reference.float().mean((0, 1))).abs().max() < 1


def test_the_sheet_shows_successes_and_failures_of_each_row() -> None:
    cell = torch.zeros(4, 4, 3, dtype=torch.uint8)
    shown = [
        Shown(cell, f"{'+' if right else '-'} row{row}: {at}", right)
        for row in range(2)
        for right in (True, False)
        for at in range(5)
    ]
    _, labels = Report("t2i", "m", 5, {}, tuple(shown)).sheet(each=2)
    assert labels == [
        "+ row0: 0",
        "+ row0: 1",
        "- row0: 0",
        "- row0: 1",
        "+ row1: 0",
        "+ row1: 1",
        "- row1: 0",
        "- row1: 1",
    ]


def test_held_out_prompts_are_held_out() -> None:
    from licht.world.heldout import shows_held_out

    assert BOLD == 500
    assert all(shows_held_out(p.scene.subjects[0]) for p in suite_pictures.prompts("one", 5, pairs="unseen"))
    assert not any(shows_held_out(p.scene.subjects[0]) for p in suite_pictures.prompts("one", 5))


@pytest.mark.parametrize(("kind", "count"), [("one", 120), ("two", 60), ("relation", 60), ("hex", 40)])
def test_every_prompt_says_of_what_kind_and_colour_each_subject_is(kind: Kind, count: int) -> None:
    asked = suite_pictures.prompts(kind, count)
    for prompt in asked:
        for index in range(len(prompt.scene.subjects)):
            assert {"kind", "color"} <= set(scoring.told_attributes(index, prompt.told.stated)), prompt.told.text
    assert asked == suite_pictures.prompts(kind, count)
    assert len({prompt.told.style for prompt in asked}) > 2


def test_negations_may_leave_open_what_is_there() -> None:
    asked = suite_pictures.prompts("negation", 20, "negation")
    assert {prompt.told.style for prompt in asked} == {"negation"}
    assert any(not scoring.told_attributes(0, prompt.told.stated) for prompt in asked)


def test_a_scene_that_no_caption_tells_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite_pictures, "caption", lambda *told, **how: Caption("an object", "short", frozenset()))
    with pytest.raises(AssertionError, match="tells every kind and colour"):
        suite_pictures.prompts("one", 1)


def test_a_card_tells_over_how_many_each_row_is() -> None:
    rows = {"one_object": share([True] * 500), "relation": share([True] * 200), "hex_ciede2000": mean([])}
    told = Report("t2i", "nano", 500, rows, ()).as_json()
    assert Figures.read(told) == Figures(
        "t2i",
        500,
        {
            "one_object": (1.0, told["rows"]["one_object"]["low"], 1.0),
            "relation": (1.0, told["rows"]["relation"]["low"], 1.0),
        },
        {"one_object": 500, "relation": 200},
    )
    del told["rows"]["relation"]["n"]  # as files were before rows had one
    card = measured_lines((Figures.read(told),))
    assert [line.rpartition("|")[0].rpartition("|")[2].strip() for line in card if "| t2i |" in line] == ["500", "500"]
    card = measured_lines((Figures("t2i", 500, {"relation": (1.0, 0.9, 1.0)}, {"relation": 200}),))
    assert "| t2i | relation | 1 | 0.9 to 1 | 200 |" in card


def test_the_table_has_a_count_for_each_row(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["eval", "vae", "--n", "2"]) == 0
    said = [line.split() for line in capsys.readouterr().out.splitlines() if "vae_psnr" in line]
    assert "2" in said[0]


def test_an_unknown_suite_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(SUITES) == {"t2i", "edit", "multiref", "text", "steps", "vae", "judge"}
    with pytest.raises(InvalidRequest, match="suite 'looks' is unknown"):
        run_suite("looks", bench_of(Oracle(), {}), "m")
    assert command(["eval", "looks"]) == 2
    assert "suite 'looks' is unknown; use one of t2i" in capsys.readouterr().err


def test_eval_prints_json_and_writes_a_sheet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sheet = tmp_path / "sheet.png"
    assert command(["eval", "vae", "--n", "3", "--json", "--sheet", str(sheet)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["suite"], said["model"], said["n"]) == ("vae", "nano", 3)
    assert set(said["rows"]["vae_psnr"]) == {"value", "low", "high", "n"}
    assert said["rows"]["vae_psnr"]["n"] == 3
    assert sheet.stat().st_size > 1000


def test_eval_takes_the_folder_of_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    autoencoder_run(tmp_path / "vae")
    flow_run(tmp_path / "base", tmp_path / "vae")
    assert command(["eval", "vae", "--model", str(tmp_path / "base"), "--n", "1", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["model"], said["n"]) == ("base", 1)
    assert command(["eval", "vae", "--model", str(tmp_path / "vae"), "--n", "1", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["model"] == "vae"
    assert alone["rows"]["vae_psnr"]["value"] == pytest.approx(said["rows"]["vae_psnr"]["value"], abs=0.2)
    assert command(["eval", "t2i", "--model", str(tmp_path / "vae"), "--n", "1"]) == 2
    assert "has trained autoencoder, which draws nothing by itself" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--sheet", "there.png"], "there.png exists; choose another name or pass --overwrite"),
        (["--sheet", "sheet.txt"], "no suffix of a known format"),
        (["--sheet", "gone/sheet.png"], "gone does not exist"),
        (["--guidance", "4"], "nano takes no guidance; leave it out"),
    ],
)
def test_what_would_be_lost_at_the_end_is_refused_at_the_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.png").write_bytes(b"a sheet")
    assert command(["eval", "vae", "--n", "1", *arguments]) == 2
    said = capsys.readouterr()
    assert told in " ".join(said.err.split())
    assert not said.out
    assert (tmp_path / "there.png").read_bytes() == b"a sheet"


def test_a_suite_without_pictures_writes_no_sheet_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(["eval", "judge", "--n", "1", "--json", "--sheet", str(tmp_path / "sheet.png")]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["suite"] == "judge"
    assert "has no pictures to show: no contact sheet" in " ".join(said.err.split())
    assert not (tmp_path / "sheet.png").exists()


def test_what_draws_nothing_is_refused_by_suites_that_draw() -> None:
    with pytest.raises(InvalidRequest, match="needs what draws"):
        run_suite("t2i", replace(bench_of(Oracle(), {}), drawer=None), "nothing")
