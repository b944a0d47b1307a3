import dataclasses
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from licht.checkpoint.description import read_description
from licht.checkpoint.detect import Layout
from licht.checkpoint.folder import read_file, read_folder
from licht.core.errors import AmbiguousModel, InvalidCheckpoint, InvalidRequest, LichtError, UnknownModel
from licht.core.sizes import Size
from licht.model.variants import Kind
from tests.support import models, raw

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a model folder from the fields of a recipe."""

    def build(**fields: Any) -> Path:  # noqa: ANN401 - whatever a recipe has
        return models.write_folder(tmp_path / "made", dataclasses.replace(models.Recipe(), **fields))

    return build


def refused(error: type[LichtError], folder: Path, *parts: str, kind: str | None = None) -> None:
    with pytest.raises(LichtError) as caught:
        read_folder(folder, kind)
    assert type(caught.value) is error
    assert caught.value.exit_code == 2
    for part in parts:
        assert part in caught.value.message


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("kind", list(Kind))
def test_a_folder_is_understood(tmp_path: Path, kind: Kind, layout: Layout) -> None:
    folder = models.write_folder(tmp_path / "my-model", models.recipe(kind, layout))
    files = read_folder(folder)
    variant = files.variant
    assert (variant.name, variant.kind) == ("my-model", kind)
    assert variant.transformer == (models.DEV_TRANSFORMER if kind is Kind.DEV else models.TRANSFORMER)
    assert variant.autoencoder == models.AUTOENCODER
    assert variant.text == (models.MISTRAL_TEXT if kind is Kind.DEV else models.TEXT)
    assert variant.default_steps == 2
    assert variant.default_guidance == (4.0 if kind in (Kind.DEV, Kind.BASE) else None)
    assert variant.default_size == Size(1024, 1024)
    assert variant.max_references == 10
    assert files.template is None


def test_shards_are_understood(write: Write) -> None:
    folder = write(shard_bytes=3000)
    assert len(list((folder / "transformer").glob("*.safetensors"))) > 3
    assert read_folder(folder).variant.transformer == models.TRANSFORMER


def test_everything_that_a_description_says_is_heard(write: Write) -> None:
    description = models.describe(
        Kind.BASE,
        trained_sizes=[[128, 128], [192, 96], [96, 192]],
        max_references=3,
        default_guidance=2.5,
        template="say {prompt}!",
    )
    files = read_folder(write(description=description))
    assert files.variant.trained_sizes == (Size(128, 128), Size(192, 96), Size(96, 192))
    assert files.variant.default_size == Size(192, 96)
    assert files.variant.max_references == 3
    assert files.variant.default_guidance == 2.5
    assert files.template == "say {prompt}!"


def test_the_default_size_is_the_squarest_of_the_largest(write: Write) -> None:
    description = models.describe(Kind.BASE, trained_sizes=[[64, 256], [128, 128], [256, 64]])
    assert read_folder(write(description=description)).variant.default_size == Size(128, 128)


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "tokenizer"])
def test_a_missing_part_is_named(copy: Path, part: str) -> None:
    shutil.rmtree(copy / part)
    refused(UnknownModel, copy, f"{copy} is not a model folder: it has no {part}/", "expected transformer/, vae/")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
def test_an_empty_part_is_named(copy: Path, part: str) -> None:
    raw.only_file(copy / part).unlink()
    refused(InvalidCheckpoint, copy, str(copy / part), "holds no safetensors file")


@pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder"])
@pytest.mark.parametrize("text", ["", "{", "[1]", '"x"'])
def test_a_broken_config_is_named(copy: Path, part: str, text: str) -> None:
    (copy / part / "config.json").write_text(text, encoding="utf-8")
    refused(InvalidCheckpoint, copy, str(copy / part / "config.json"), "JSON", "copy it again")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the file: Invalid JSON"),
        ("{", "the file: Invalid JSON"),
        ("[]", "the file: Input should be an object"),
        ('{"surprise": 1}', "surprise: Extra inputs are not permitted; known are kind, text_layers"),
        ('{"kind": 1}', "kind: Input should be a valid string"),
        ('{"text_layers": "1"}', "text_layers: Input should be a valid array"),
        ('{"text_layers": []}', "text_layers: List should have at least 1 item"),
        ('{"text_layers": [1.5]}', "text_layers.0: Input should be a valid integer"),
        ('{"text_layers": [true]}', "text_layers.0: Input should be a valid integer"),
        ('{"text_length": 4}', "text_length: Input should be greater than or equal to 8"),
        ('{"text_length": 5000}', "text_length: Input should be less than or equal to 4096"),
        ('{"text_length": "64"}', "text_length: Input should be a valid integer"),
        ('{"template": ["x"]}', "template: Input should be a valid string"),
        ('{"trained_sizes": [[64]]}', "trained_sizes.0.1: Field required"),
        ('{"trained_sizes": [[64, 64, 64]]}', "trained_sizes.0: Tuple should have at most 2 items"),
        ('{"trained_sizes": 64}', "trained_sizes: Input should be a valid array"),
        ('{"max_references": -1}', "max_references: Input should be greater than or equal to 0"),
        ('{"max_references": 11}', "max_references: Input should be less than or equal to 10"),
        ('{"default_steps": 0}', "default_steps: Input should be greater than or equal to 1"),
        ('{"default_steps": 51}', "default_steps: Input should be less than or equal to 50"),
        ('{"default_guidance": "3"}', "default_guidance: Input should be a valid number"),
        ('{"default_guidance": NaN}', "default_guidance: Input should be"),
        ('{"default_guidance": -1}', "default_guidance: Input should be greater than or equal to 0"),
        ("\udcff", "the file: Invalid JSON"),
    ],
)
def test_a_wrong_description_is_refused_with_its_field(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "licht.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(InvalidCheckpoint) as caught:
        read_description(path)
    assert f"{path} is not a description of a model: {message}" in caught.value.message


def test_a_description_that_may_not_be_read_is_refused(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "read_bytes", denied)
    with pytest.raises(InvalidCheckpoint, match=r"licht\.json cannot be read \(Permission denied\)"):
        read_description(tiny / "licht.json")


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ([48, 64], "width 48 px is too small; use at least 64 px"),
        ([64, 72], "height 72 px is not a multiple of 16"),
        ([-64, 64], "width -64 px is too small"),
        ([4096, 4096], "megapixels; at most 4"),
        ([1048576, 64], "width 1048576 px is too large; use at most 5792 px"),
        ([64, 10**400], "px is too large; use at most 5792 px"),
        ([64, 1024], "is longer than 8:1"),
    ],
)
def test_a_trained_size_that_cannot_be_drawn_is_refused(write: Write, size: list[int], message: str) -> None:
    folder = write(description=models.describe(Kind.BASE, trained_sizes=[[64, 64], size]))
    refused(InvalidCheckpoint, folder, "the trained_sizes of licht.json:", message)


@pytest.mark.parametrize("layers", [[1, 2, 4], [1, 2, 5], [-1, 1, 2], [3, 2, 1], [1, 1, 2], [1, 2, 10**9]])
def test_text_layers_that_are_not_there_are_refused(write: Write, layers: list[int]) -> None:
    folder = write(description={**models.describe(Kind.KLEIN), "text_layers": layers})
    message = f"text layers {tuple(layers)} of a text model with 4 layers; expected ascending numbers from 0 to 3"
    refused(InvalidCheckpoint, folder, message, "text_layers of licht.json")


def test_a_text_encoder_of_another_width_is_refused(write: Write) -> None:
    wide = dataclasses.replace(models.TEXT, tower=dataclasses.replace(models.QWEN, hidden_size=24))
    folder = write(text=wide)
    message = "the transformer reads text of width 48, the text encoder gives 72 (3 x 24)"
    refused(InvalidCheckpoint, folder, message, "use the encoder it was trained with")


def test_an_autoencoder_of_other_channels_is_refused(write: Write) -> None:
    folder = write(autoencoder=dataclasses.replace(models.AUTOENCODER, z_channels=8))
    message = "the transformer works on 16 channels, the autoencoder on 32"
    refused(InvalidCheckpoint, folder, message, "use the autoencoder it was trained with")


def test_parts_in_the_place_of_one_another_are_refused(copy: Path) -> None:
    (copy / "vae").rename(copy / "x")
    (copy / "transformer").rename(copy / "vae")
    (copy / "x").rename(copy / "transformer")
    refused(InvalidCheckpoint, copy, str(copy / "transformer"), "is not a FLUX.2 transformer")


AMBIGUOUS = (
    "may be klein (distilled), base (undistilled) or kv: their shapes are the same; say which with --variant klein"
)


@pytest.mark.parametrize("index", [None, {}, {"_class_name": "Flux2KleinPipeline"}, {"is_distilled": "no"}])
def test_an_ambiguous_kind_names_the_choices(write: Write, index: dict[str, Any] | None) -> None:
    folder = write(description=models.describe(None), index=index)
    refused(AmbiguousModel, folder, "made", AMBIGUOUS)
    for asked, kind in (("klein", Kind.KLEIN), ("base", Kind.BASE), ("kv", Kind.KV)):
        assert read_folder(folder, asked).variant.kind is kind
    refused(InvalidRequest, folder, "cannot be klein-base-9b: its transformer has other sizes", kind="klein-base-9b")


@pytest.mark.parametrize(
    ("index", "kind"),
    [
        ({"_class_name": "Flux2KleinPipeline", "is_distilled": True}, Kind.KLEIN),
        ({"_class_name": "Flux2KleinPipeline", "is_distilled": False}, Kind.BASE),
        ({"_class_name": "Flux2KleinKVPipeline", "is_distilled": True}, Kind.KV),
        ({"_class_name": "Flux2KleinKVPipeline"}, Kind.KV),
    ],
)
def test_the_index_of_the_pipeline_tells_the_kind(write: Write, index: dict[str, Any], kind: Kind) -> None:
    folder = write(description=models.describe(None), index=index)
    assert read_folder(folder).variant.kind is kind
    assert read_folder(folder, "base").variant.kind is Kind.BASE


def test_a_guidance_embedding_tells_a_dev_model(write: Write) -> None:
    folder = write(transformer=models.DEV_TRANSFORMER, description=models.describe(None))
    assert read_folder(folder).variant.kind is Kind.DEV


def test_the_metadata_of_the_file_tells_the_kind(write: Write) -> None:
    folder = write(description=models.describe(None))
    raw.rewrite(folder / "transformer", {}, {"licht.kind": "kv"})
    assert read_folder(folder).variant.kind is Kind.KV


@pytest.mark.parametrize("asked", [True, False])
def test_a_kind_that_contradicts_the_shapes_is_refused(write: Write, asked: bool) -> None:
    # who is to blame decides the error: the person who asked, or the file
    error = InvalidRequest if asked else InvalidCheckpoint
    folder = write(description=models.describe(None if asked else Kind.DEV))
    refused(
        error,
        folder,
        "made cannot be dev: its transformer has no guidance embedding; use --variant klein, base or kv",
        kind="dev" if asked else None,
    )


def test_no_dev_model_is_anything_else(write: Write) -> None:
    folder = write(transformer=models.DEV_TRANSFORMER, description=models.describe(Kind.DEV))
    for kind in ("klein", "base", "kv"):
        refused(InvalidRequest, folder, "its transformer has a guidance embedding; use --variant dev", kind=kind)


def test_an_unknown_kind_is_refused_with_the_choices(write: Write) -> None:
    folder = write()
    message = "is not a kind of model; say which with --variant: klein, base, dev, kv, klein-4b"
    refused(InvalidRequest, folder, "'flux1' " + message, kind="flux1")
    models.change(folder / "licht.json", kind="flux1")
    refused(InvalidCheckpoint, folder, "'flux1' " + message)
    assert read_folder(folder, "klein").variant.kind is Kind.KLEIN


@pytest.fixture
def single(official: Path, tmp_path: Path) -> Path:
    """A transformer in a single file with official names, its other parts beside it."""
    folder = tmp_path / "single"
    folder.mkdir()
    shutil.copy(raw.only_file(official / "transformer"), folder / "mine.safetensors")
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.copytree(official / part, folder / part)
    shutil.copy(official / "licht.json", folder / "licht.json")
    return folder / "mine.safetensors"


def test_a_single_file_is_completed_by_what_lies_beside_it(single: Path) -> None:
    files = read_file(single, None, None, None)
    assert (files.variant.name, files.variant.kind) == ("mine", Kind.KLEIN)
    assert files.parts.transformer == single
    assert files.parts.autoencoder == single.parent / "vae"
    assert files.parts.tokenizer == single.parent / "tokenizer"


def test_a_single_file_is_completed_by_what_is_named(single: Path, tiny: Path) -> None:
    for part in ("vae", "text_encoder", "tokenizer"):
        shutil.rmtree(single.parent / part)
    files = read_file(single, "base", tiny / "vae", tiny / "text_encoder")
    assert files.variant.kind is Kind.BASE
    assert files.parts.tokenizer == tiny / "tokenizer"


def test_what_a_single_file_lacks_is_named(single: Path) -> None:
    folder = single.parent
    (folder / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(UnknownModel, match=re.escape(f"no tokenizer.json in {folder / 'text_encoder'} or in")):
        read_file(single, None, None, None)
    shutil.rmtree(folder / "text_encoder")
    with pytest.raises(UnknownModel, match=r"no text encoder beside .*: name its folder or file with --text-encoder"):
        read_file(single, None, None, None)
    shutil.rmtree(folder / "vae")
    with pytest.raises(UnknownModel, match=r"no autoencoder beside .*: name one with --vae"):
        read_file(single, None, None, None)
    with pytest.raises(UnknownModel, match="no autoencoder beside"):
        read_file(single, None, folder / "absent.safetensors", None)


def test_what_is_no_checkpoint_is_said_before_anything_is_missed(tmp_path: Path) -> None:
    path = tmp_path / "notes.safetensors"
    path.write_text("some notes", encoding="utf-8")
    with pytest.raises(InvalidCheckpoint, match=r"notes\.safetensors is not a complete safetensors file"):
        read_file(path, None, None, None)
    torch.save({}, path)
    with pytest.raises(InvalidCheckpoint, match="is a pickle, which can run code"):
        read_file(path, None, None, None)


def test_an_official_name_promises_an_official_network(single: Path) -> None:
    renamed = single.rename(single.with_name("flux-2-klein-base-4b.safetensors"))
    (single.parent / "licht.json").write_text('{"text_layers": [1, 2, 3]}', encoding="utf-8")
    with pytest.raises(
        InvalidCheckpoint, match="bears the name of klein-base-4b, but its tensors make another network"
    ):
        read_file(renamed, None, None, None)
