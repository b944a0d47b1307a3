import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from licht.checkpoint.assets import built_in
from licht.checkpoint.catalog import DEFAULT_MODEL, find_model, models_folder
from licht.core.errors import InvalidRequest, LichtError, UnknownModel
from licht.model.variants import VARIANTS, Kind
from tests.support import models


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty models folder, and an empty current folder."""
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.setenv("LICHT_MODELS", str(folder))
    monkeypatch.chdir(tmp_path / "here")
    return folder


def refused(error: type[LichtError], model: str, *parts: str) -> None:
    with pytest.raises(LichtError) as caught:
        find_model(model)
    assert type(caught.value) is error
    assert caught.value.field == "model"
    for part in parts:
        assert part in caught.value.message


def test_the_default_model_is_built_in() -> None:
    assert DEFAULT_MODEL in built_in()
    assert find_model(DEFAULT_MODEL).variant.name == DEFAULT_MODEL


def test_a_model_is_found_by_name_folder_and_file(shelf: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(tiny, shelf / "mine")
    assert find_model("mine").variant.name == "mine"
    assert find_model(str(tiny)).variant.name == "tiny"
    assert find_model(str(tiny), "base").variant.kind is Kind.BASE
    monkeypatch.chdir(tiny)
    assert find_model(".").variant.name == "tiny"
    with pytest.raises(UnknownModel, match="no autoencoder beside"):
        find_model("transformer/diffusion_pytorch_model.safetensors")


def test_an_official_name_tells_the_kind_of_the_folder(
    shelf: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny, shelf / "klein-base-4b")
    (shelf / "klein-base-4b" / "licht.json").write_text('{"text_layers": [1, 2, 3], "text_length": 24}', "utf-8")
    with pytest.raises(InvalidRequest, match="cannot be klein-base-4b: its transformer has other sizes"):
        find_model("klein-base-4b")
    sizes = find_model("klein-base-4b", "base").variant.transformer
    official = {**VARIANTS, "klein-base-4b": replace(VARIANTS["klein-base-4b"], transformer=sizes)}
    monkeypatch.setattr("licht.checkpoint.folder.VARIANTS", official)
    for name in ("klein-base-4b", "FLUX.2-klein-base-4B"):
        assert find_model(name).variant.kind is Kind.BASE
    assert find_model("klein-base-4b", "kv").variant.kind is Kind.KV


def test_an_official_model_that_is_not_installed_says_where_it_belongs(shelf: Path) -> None:
    target = str(shelf / "klein-9b-kv")
    refused(
        UnknownModel,
        "klein-9b-kv",
        "klein-9b-kv is not installed: run `licht models get klein-9b-kv`, copy",
        "-9b-kv to " + target,
    )


@pytest.mark.parametrize(
    "model", ["", "nowhere", "no/where", "..x", "a\nb", "\x1b[31m", "nano2", "/dev/null", "-", "x\0y"]
)
def test_an_unknown_model_names_the_known_ones(shelf: Path, model: str) -> None:
    refused(
        UnknownModel, model, "there is no model, folder or file", f"use a path, or one of {', '.join(built_in())}, dev"
    )


@pytest.mark.parametrize("model", [".", "..", "/"])
def test_a_folder_that_is_no_model_is_said_to_be_none(shelf: Path, model: str) -> None:
    refused(UnknownModel, model, f"{model} is not a model folder: it has no transformer/")


@pytest.mark.parametrize("model", ["~nobody-of-this-name", "a" * 5000])
def test_a_name_that_no_file_can_have_is_refused(shelf: Path, model: str) -> None:
    refused(UnknownModel, model, "cannot be a model, folder or file", "use a name or a path")


def test_a_local_folder_does_not_hide_a_built_in_model(shelf: Path, tiny: Path) -> None:
    shutil.copytree(tiny, Path("nano"))
    assert find_model("nano").variant.transformer != models.TRANSFORMER
    assert find_model("./nano").variant.transformer == models.TRANSFORMER


@pytest.mark.parametrize("whole", ["nano", "folder", "installed"])
@pytest.mark.parametrize("option", ["vae", "text_encoder"])
def test_parts_are_only_taken_where_they_are_missing(shelf: Path, tiny: Path, whole: str, option: str) -> None:
    shutil.copytree(tiny, shelf / "installed")
    parts = (tiny / "vae", None) if option == "vae" else (None, tiny / "text_encoder")
    with pytest.raises(InvalidRequest, match="is a whole model; --vae and --text-encoder only complete") as caught:
        find_model(str(tiny) if whole == "folder" else whole, None, *parts)
    assert caught.value.field == option


def test_models_live_where_the_setting_says(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert models_folder() == shelf
    monkeypatch.delenv("LICHT_MODELS")
    assert models_folder().parts[-2:] == ("licht", "models")
