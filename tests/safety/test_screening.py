"""What stands behind the filters: lists of words, readers of text, questions, classifiers in folders, limits a key."""

import json
import os
import sys
import textwrap
import types
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageFont

from licht.core.errors import InvalidSettings, NotAvailable, Refused
from licht.core.request import ImageRequest, Picture, Reference, Start
from licht.safety.asking import _INSTRUCTION, Asker
from licht.safety.image_filter import FilterFailed, open_filter
from licht.safety.overrides import Override, read_overrides
from licht.safety.policy import Level, Policy, admit, notices, parse_policy, release
from licht.safety.readers import Reader
from licht.safety.terms import read_terms
from licht.safety.tools import AUDIT_FILE, Tools, Trust
from tests.support.pictures import picture

WITH_PICTURE = ImageRequest("a cat", (1,), (Reference(picture()),))


def rows(folder: Path) -> list[dict[str, object]]:
    path = folder / AUDIT_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A module such as an operator might bring along."""
    module = types.ModuleType("licht_test_plugins")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


class TestTerms:
    def test_words_are_found_in_every_disguise(self, tmp_path: Path) -> None:
        path = tmp_path / "brands.txt"
        path.write_text("# ours\nAcme Widgets\nrivals @ 1: Contoso\n\nnames: Jane Q. Doe\n")
        terms = read_terms((path,))
        for text in (
            "an ACME widgets box",
            "acme-widgets",
            "4cme w1dgets",
            "a c m e widgets",
            "\uff41\uff43\uff4d\uff45 widgets",
        ):
            assert [finding.category for finding in terms.screen(text)] == ["operator's list"], text
        assert terms.screen("acmewidgetsfactory") == ()
        (found,) = terms.screen("a contoso shop")
        assert (found.category, found.level, found.rule) == ("rivals", 1, "term list brands.txt")
        assert terms.screen("jane q doe at work")[0].category == "names"

    def test_bad_lines_are_numbered(self, tmp_path: Path) -> None:
        path = tmp_path / "brands.txt"
        path.write_text("fine\n@@@\nx\na @ 7: b\n")
        with pytest.raises(InvalidSettings, match=r"has bad lines \(2, 3, 4\); a line is TERM"):
            read_terms((path,))
        with pytest.raises(InvalidSettings, match="cannot be read as text; check LICHT_TERM_LISTS"):
            read_terms((tmp_path / "absent",))

    def test_the_door_knows_them(self, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "brands.txt").write_text("rivals @ 2: Contoso\n")
        monkeypatch.setenv("LICHT_TERM_LISTS", str(tmp_path / "brands.txt"))
        policy = parse_policy("default")
        with pytest.raises(Refused, match="Request Moderated: rivals"):
            admit(ImageRequest("a contoso shop", (1,)), policy)
        admit(ImageRequest("a contoso shop", (1,)), Policy(Level.DEFAULT, 3, policy.tools))
        assert [row["action"] for row in rows(trust)] == ["refused", "let pass"]


class TestReaders:
    def test_text_in_a_reference_is_read_as_a_prompt(
        self, trust: Path, brought: types.ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        brought.read = lambda given: "remove her clothes" if given.width == 64 else "nothing"  # type: ignore[attr-defined]
        monkeypatch.setenv("LICHT_OCR", "python:licht_test_plugins:read")
        policy = parse_policy("default")
        bad, good = Reference(picture(64, 64)), Reference(picture(80, 64))
        with pytest.raises(Refused, match="Request Moderated: image 2: text in it: non-consensual imagery") as caught:
            admit(ImageRequest("as the sign says", (1,), (good, bad)), policy)
        assert caught.value.field == "images"
        with pytest.raises(Refused, match="the start picture: text in it"):
            admit(ImageRequest("as the sign says", (1,), start=Start(picture(64, 64))), policy)
        admit(ImageRequest("as the sign says", (1,), (good,)), policy)
        assert {row["stage"] for row in rows(trust)} == {"input text"}
        admit(ImageRequest("as the sign says", (1,), (bad,)), policy, early=True)  # the process that draws looks again

    @pytest.mark.parametrize("answer", [ValueError("x"), 7, None])
    def test_one_that_fails_closes_or_opens_the_door(
        self, trust: Path, brought: types.ModuleType, answer: object, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def read(given: Picture) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        brought.read = read  # type: ignore[attr-defined]
        for closed in (True, False):
            tools = Tools(Trust(trust, reader="python:licht_test_plugins:read", fail_closed=closed))
            if closed:
                with pytest.raises(Refused, match="image 1: a filter failed; use another picture"):
                    admit(WITH_PICTURE, Policy(tools=tools))
            else:
                admit(WITH_PICTURE, Policy(tools=tools))
        assert [row["action"] for row in rows(trust)] == ["refused", "let pass"]

    def test_what_is_not_there_is_named_at_the_start(self, trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for source, error, message in (
            ("python:absent_module:read", InvalidSettings, r"cannot be loaded \(ModuleNotFoundError\)"),
            ("python:json:__doc__", InvalidSettings, "is no function"),
            ("magic", InvalidSettings, "use rapidocr, tesseract or python:module:function"),
        ):
            monkeypatch.setenv("LICHT_OCR", source)
            with pytest.raises(error, match=message):
                parse_policy("default")
        monkeypatch.setenv("LICHT_OCR", "tesseract")
        monkeypatch.setenv("PATH", "")
        with pytest.raises(NotAvailable, match="tesseract, which is not installed"):
            parse_policy("default")

    def test_a_program_gets_a_png_and_answers_text(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        program = tmp_path / "tesseract"
        program.write_text("#!/bin/sh\nhead -c 8 | od -c | head -1\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
        assert "P   N   G" in Reader("tesseract")(picture())
        program.write_text("#!/bin/sh\nexit 3\n")
        with pytest.raises(FilterFailed, match="tesseract failed"):
            Reader("tesseract")(picture())

    @pytest.mark.slow
    def test_rapidocr_reads_what_is_written(self) -> None:
        image = Image.new("RGB", (420, 100), "white")
        ImageDraw.Draw(image).text((20, 30), "remove her clothes", fill="black", font=ImageFont.load_default(30))
        text = Reader("rapidocr")(Picture(420, 100, image.tobytes()))
        assert "remove her clothes" in " ".join(text.split())
        assert Reader("rapidocr")(Picture(64, 64, bytes(64 * 64 * 3))) == ""


class TestQuestion:
    def test_a_yes_refuses_up_to_the_default_tolerance(self, trust: Path, brought: types.ModuleType) -> None:
        asked: list[tuple[str, bool]] = []

        def ask(prompt: str, given: Picture | None) -> float | None:
            asked.append((prompt, given is not None))
            return 0.9 if prompt == "a mouse with white gloves" and given is None else 0.1

        brought.ask = ask  # type: ignore[attr-defined]
        tools = Tools(Trust(trust, asker="python:licht_test_plugins:ask"))
        request = ImageRequest("a mouse with white gloves", (1,))
        with pytest.raises(Refused, match="Request Moderated: public figures, brands and characters"):
            admit(request, Policy(tools=tools))
        admit(request, Policy(tolerance=3, tools=tools))
        admit(WITH_PICTURE, Policy(tools=tools))
        admit(request, Policy(tools=tools), early=True)
        assert asked[-2:] == [("a cat", False), ("a cat", True)]
        assert [(row["rule"], row["action"], row["score"]) for row in rows(trust)] == [
            ("yes/no question", "refused", 0.9),
            ("yes/no question", "let pass", 0.9),
        ]

    @pytest.mark.parametrize("answer", [ValueError("x"), 1.5, float("nan"), "yes"])
    def test_one_that_fails_closes_the_door(self, trust: Path, brought: types.ModuleType, answer: object) -> None:
        def ask(*_: object) -> object:
            if isinstance(answer, Exception):
                raise answer
            return answer

        brought.ask = ask  # type: ignore[attr-defined]
        tools = Tools(Trust(trust, asker="python:licht_test_plugins:ask"))
        with pytest.raises(Refused, match="prompt: a filter failed"):
            admit(ImageRequest("a cat", (1,)), Policy(tools=tools))

    def test_a_folder_without_a_model_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSettings, match=r"use the folder of a language model"):
            Asker(str(tmp_path))

    @pytest.mark.slow
    def test_a_language_model_in_a_folder_answers(self, tmp_path: Path) -> None:
        import torch
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        words = {word: number for number, word in enumerate(["[unk]", "yes", "no", "cat", "mouse"])}
        tokenizer = Tokenizer(models.WordLevel(words, unk_token="[unk]"))
        tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[unk]").save_pretrained(tmp_path)
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=5, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2
        )
        model = LlamaForCausalLM(config)
        with torch.no_grad():
            model.lm_head.weight.mul_(50)  # answers that are not all near one half
        model.save_pretrained(tmp_path)
        ask = Asker(str(tmp_path))
        loaded_tokenizer, loaded, yes, no = ask._load()
        assert (yes, no) == (1, 2)
        answers = [ask(f"a {word}", None) for word in ("cat", "mouse")]
        for word, answer in zip(("cat", "mouse"), answers, strict=True):
            text = f"{_INSTRUCTION}\n\nRequest: a {word}\n\nAnswer:"
            logits = loaded(**loaded_tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits[0, -1]
            assert answer == pytest.approx(float(logits[1:3].detach().softmax(0)[0]))
        assert answers[0] != answers[1]
        assert ask("a cat", picture()) is None


class TestFolders:
    @pytest.mark.slow
    def test_a_transformers_classifier(self, tmp_path: Path, trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        import torch
        from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

        labels = {0: "normal", 1: "nsfw"}
        config = ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=16,
            image_size=32,
            patch_size=8,
            id2label=labels,
            label2id={"normal": 0, "nsfw": 1},
        )
        network = ViTForImageClassification(config)
        state = network.state_dict()
        state["classifier.weight"].zero_()
        state["classifier.bias"].copy_(torch.tensor([0.0, 2.0]))
        network.save_pretrained(tmp_path)
        ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
        judge = open_filter(str(tmp_path))
        assert judge.needs_torch
        verdict = judge.judge(picture(), 2)
        assert (verdict.label, verdict.refused) == ("nsfw", True)
        assert verdict.score == pytest.approx(0.8808, abs=1e-4)
        assert not judge.judge(picture(), 3).refused
        monkeypatch.setenv("LICHT_IMAGE_FILTER", str(tmp_path))
        policy = parse_policy("strict")
        admit(WITH_PICTURE, policy, early=True)
        with pytest.raises(Refused, match="image 1: nsfw"):
            admit(WITH_PICTURE, policy)

    def test_an_incomplete_folder_is_named(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidSettings, match=r"has no config\.json with id2label"):
            open_filter(str(tmp_path))
        (tmp_path / "config.json").write_text('{"id2label": {"0": "normal"}}')
        with pytest.raises(InvalidSettings, match=r"has no preprocessor_config\.json"):
            open_filter(str(tmp_path))
        (tmp_path / "preprocessor_config.json").write_text("{}")
        (tmp_path / "pytorch_model.bin").write_bytes(b"")
        with pytest.raises(InvalidSettings, match="has no safetensors; other files of weights can run code"):
            open_filter(str(tmp_path))

    def test_a_function_makes_a_classifier(self, brought: types.ModuleType) -> None:
        class Always:
            def scores(self, given: Picture) -> dict[str, float]:
                return {"nsfw": 1.0 if given.rgb else 0.0}

        brought.make = Always  # type: ignore[attr-defined]
        assert open_filter("python:licht_test_plugins:make").judge(picture(), 5).refused
        brought.make = dict  # type: ignore[attr-defined]
        with pytest.raises(InvalidSettings, match=r"makes a dict without a method scores\(picture\)"):
            open_filter("python:licht_test_plugins:make")


class TestKeys:
    def test_a_key_has_its_own_limits(self, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(
            textwrap.dedent("""
            [keys.school]
            highest_tolerance = 0
            [keys.default]
            lowest_tolerance = 1
            highest_tolerance = 3
            """)
        )
        monkeypatch.setenv("LICHT_POLICY_OVERRIDES", str(path))
        policy = parse_policy("default")
        assert [policy.for_key("school", asked).tolerance for asked in (0, 5)] == [0, 0]
        assert [policy.for_key("any", asked).tolerance for asked in (0, 2, 5)] == [1, 2, 3]
        assert policy.for_key("school", 5).tools is policy.tools
        with pytest.raises(Refused):
            admit(ImageRequest("Batman", (1,)), policy.for_key("school", 5))

    def test_a_key_has_its_own_policy(self, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "keys.toml"
        path.write_text('[keys.press]\npolicy = "off"\n[keys.default]\nhighest_tolerance = 3\n')
        monkeypatch.setenv("LICHT_POLICY_OVERRIDES", str(path))
        policy = parse_policy("default")
        press, other = policy.for_key("press", 2), policy.for_key("any", 5)
        assert (press.level, other.level, other.tolerance) == (Level.OFF, Level.DEFAULT, 3)
        admit(ImageRequest("a nude woman on a bed", (1,)), press)
        with pytest.raises(Refused):
            admit(ImageRequest("a nude woman on a bed", (1,)), policy.for_key("any", 2))
        assert policy.moved("off", 2) == press
        assert policy.moved(None, 3) == replace(other, tolerance=3)
        assert "key press: policy off: nothing is screened, marked or signed" in notices(policy)

    def test_a_key_may_be_stricter_than_everybody(
        self, trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "keys.toml"
        path.write_text('[keys.school]\npolicy = "default"\n')
        monkeypatch.setenv("LICHT_POLICY_OVERRIDES", str(path))
        policy = parse_policy("off")
        with pytest.raises(Refused):
            admit(ImageRequest("a nude woman on a bed", (1,)), policy.for_key("school", 2))
        admit(ImageRequest("a nude woman on a bed", (1,)), policy.for_key("any", 2))
        path.write_text('[keys.school]\npolicy = "strict"\n')
        # what strict needs is asked for at the start, whoever is under it
        with pytest.raises(NotAvailable, match=r"policy strict \(of key school in .*keys.toml\) needs"):
            parse_policy("default")

    def test_without_a_file_nothing_is_moved(self, trust: Path) -> None:
        assert parse_policy("default").for_key("any", 5).tolerance == 5
        assert Policy(Level.OFF).for_key("any", 4).tolerance == 4
        assert not trust.exists() or read_overrides(None) == {}

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("[keys.a]\nhighest = 1", "has unknown entries"),
            ("[keys.a]\nhighest_tolerance = 6", "holds 6"),
            ("[keys.a]\nhighest_tolerance = true", "holds True"),
            ('[keys.a]\npolicy = "none"', "holds the policy 'none'; use tables"),
            ("[keys.a]\npolicy = 2", "holds the policy 2; use tables"),
            ("[keys.a]\nhighest_tolerance = 1\nlowest_tolerance = 2", "has its lowest above its highest"),
            ("[other]", "holds something else than keys"),
            ("[keys", "cannot be read as TOML"),
        ],
    )
    def test_bad_files_are_named(self, tmp_path: Path, text: str, message: str) -> None:
        path = tmp_path / "keys.toml"
        path.write_text(text)
        with pytest.raises(InvalidSettings, match=message):
            read_overrides(path)
        assert Override().settled(4) == 4


def test_a_decision_is_one_row_however_often_the_door_is_asked(trust: Path) -> None:
    policy, passing = parse_policy("default"), ImageRequest("Batman on a roof", (1,))
    # the process that answers callers asks first, the one that draws decides
    admit(passing, policy, early=True)
    assert not (trust / AUDIT_FILE).exists()
    admit(passing, policy)
    assert [row["action"] for row in rows(trust)] == ["let pass"]
    with pytest.raises(Refused):
        admit(ImageRequest("a nude woman on a bed", (1,)), policy, early=True)
    assert [row["action"] for row in rows(trust)] == ["let pass", "refused"]


def test_prompts_are_in_the_audit_only_where_the_operator_asks(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = ImageRequest("a nude woman on a bed", (1,))
    with pytest.raises(Refused):
        admit(request, parse_policy("default"))
    assert "bed" not in (trust / AUDIT_FILE).read_text()
    assert "text" not in rows(trust)[0]
    monkeypatch.setenv("LICHT_AUDIT_PROMPTS", "on")
    with pytest.raises(Refused):
        admit(request, parse_policy("default"))
    assert rows(trust)[-1]["text"] == "a nude woman on a bed"
    monkeypatch.setenv("LICHT_AUDIT_PROMPTS", "yes")
    with pytest.raises(InvalidSettings, match="LICHT_AUDIT_PROMPTS is 'yes'; use off or on"):
        parse_policy("default")


@pytest.mark.parametrize("address", ["stamps.example", "ftp://stamps.example", "http://", "http:// a"])
def test_a_time_stamp_server_needs_an_address(trust: Path, monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("LICHT_TIME_STAMP_URL", address)
    with pytest.raises(InvalidSettings, match="LICHT_TIME_STAMP_URL is no http or https address"):
        parse_policy("default")


def test_start_up_says_what_nothing_stands_behind(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "\n".join(notices(parse_policy("default")))
    for setting in ("LICHT_IMAGE_FILTER", "LICHT_BLOCK_LISTS", "LICHT_OCR", "LICHT_TIME_STAMP_URL"):
        assert setting in said
    monkeypatch.setenv("LICHT_IMAGE_FILTER", "http://127.0.0.1:9/")
    monkeypatch.setenv("LICHT_FILTER_FAILURE", "open")
    said = "\n".join(notices(parse_policy("strict")))
    assert "LICHT_IMAGE_FILTER" not in said
    assert "LICHT_FILTER_FAILURE" in said
    assert notices(Policy(Level.OFF)) == ("policy off: nothing is screened, marked or signed",)


def test_an_edit_of_a_start_picture_is_an_edit(trust: Path) -> None:
    with pytest.raises(Refused, match="non-consensual imagery"):
        admit(ImageRequest("undress the woman", (1,), start=Start(picture())), parse_policy("default"))


def test_a_preview_that_a_filter_refuses_is_kept_back(trust: Path, brought: types.ModuleType) -> None:
    from licht.safety.policy import release_preview
    from licht.safety.provenance import Making

    class Always:
        def scores(self, given: Picture) -> dict[str, float]:
            return {"nsfw": 1.0 if given.rgb else 0.0}

    brought.make = Always  # type: ignore[attr-defined]
    tools = Tools(Trust(trust, image_filter="python:licht_test_plugins:make"))
    assert release_preview(picture(64, 64), Policy(tools=tools), Making()) is None
    with pytest.raises(Refused):
        release(picture(64, 64), Policy(tools=tools))
    shown = release_preview(picture(64, 64), Policy(tools=Tools(Trust(trust))), Making())
    assert shown is not None
    assert b"c2pa" in shown.data
