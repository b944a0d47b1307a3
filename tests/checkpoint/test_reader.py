import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from licht.checkpoint.reader import MAX_HEADER_BYTES, MAX_TENSORS, TensorSource, open_source, read_json
from licht.core.errors import InvalidCheckpoint
from tests.support.raw import entry, safetensors_bytes


def write(folder: Path, name: str = "model.safetensors", **tensors: torch.Tensor) -> Path:
    path = folder / name
    save_file(tensors or {"a": torch.arange(6.0).reshape(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, path)
    return path


def write_shards(folder: Path) -> Path:
    """Two shards with an index; returns the index."""
    write(folder, "model-1.safetensors", a=torch.ones(2))
    write(folder, "model-2.safetensors", b=torch.ones(3), c=torch.ones(4))
    index = folder / "model.safetensors.index.json"
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors", "c": "model-2.safetensors"}
    index.write_text(json.dumps({"metadata": {"total_size": 36}, "weight_map": weight_map}), encoding="utf-8")
    return index


def refused(path: Path, *parts: str) -> str:
    """Opening `path` is refused with one line that names all `parts`."""
    with pytest.raises(InvalidCheckpoint) as caught:
        open_source(path)
    message = caught.value.message
    for part in parts:
        assert part in message
    assert message.isprintable()
    return message


def test_headers_are_known_before_data_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, path, {"format": "pt", "x": "y"})
    source = open_source(path)
    assert list(source) == ["a", "b"]
    assert "a" in source
    assert "c" not in source
    assert source.infos["a"].shape == (2, 3)
    assert source.infos["a"].dtype == torch.float32
    assert source.infos["b"].dtype == torch.bfloat16
    assert source.memory_bytes == 24 + 8
    assert source.metadata == {"format": "pt", "x": "y"}
    assert source.place == str(path)


def test_a_tensor_is_what_was_saved(tmp_path: Path) -> None:
    source = open_source(write(tmp_path))
    assert torch.equal(source.tensor("a"), torch.arange(6.0).reshape(2, 3))
    assert source.tensor("a").data_ptr() == source.tensor("a").data_ptr()  # mapped, not read anew


def test_a_folder_with_one_file_is_that_file(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert open_source(tmp_path).paths == (path,)


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    write_shards(tmp_path)
    source = open_source(tmp_path)
    assert sorted(source) == ["a", "b", "c"]
    assert source.tensor("c").shape == (4,)
    assert source.place == str(tmp_path)


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 20, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, kept: int) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:kept])
    refused(path, str(path), "is not a complete safetensors file", "download or copy it again")


def test_a_file_that_is_too_long_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes() + b"x")
    refused(path, "is not a complete safetensors file")


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt", "model.pt"])
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_is_refused_under_any_name(tmp_path: Path, name: str, zipped: bool) -> None:
    path = tmp_path / name
    torch.save({"a": torch.zeros(2)}, path, _use_new_zipfile_serialization=zipped)
    refused(path, str(path), "is a pickle, which can run code when it is read", "as safetensors")


def test_a_folder_of_pickles_is_refused(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "pytorch_model.bin")
    refused(tmp_path, "holds only pytorch_model.bin, a pickle, which can run code", "as safetensors")


def test_folders_without_exactly_one_checkpoint_are_refused(tmp_path: Path) -> None:
    refused(tmp_path, "holds no safetensors file; expected one file, or shards with one index")
    refused(tmp_path / "absent", "holds no safetensors file")
    write(tmp_path, "a.safetensors")
    write(tmp_path, "b.safetensors")
    refused(tmp_path, "holds 2 safetensors files and 0 indices; expected one file")
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors.index.json").write_text("{}", encoding="utf-8")
    refused(tmp_path, "holds 2 safetensors files and 2 indices")


@pytest.mark.parametrize(
    "name",
    [
        "../../etc/passwd",
        "a/b",
        "a\0b",
        "",
        ".hidden",
        "a..b",
        "a b",
        "a\nb",
        "\x1b[31m",
        "ü",
        "x" * 257,
        "__metadata__ ",
        "-a",
    ],
)
def test_suspicious_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({name: entry([2])}, bytes(8)))
    refused(path, str(path), "has a tensor with the name", "such a file is not loaded")


def test_the_longest_name_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({"x" * 256: entry([2])}, bytes(8)))
    assert len(open_source(path).infos) == 1


@pytest.mark.parametrize("dtype", ["U16", "U32", "U64", "F8_E8M0", "C64"])
def test_unknown_types_are_refused(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "model.safetensors"
    size = {"U16": 2, "U32": 4, "U64": 8, "F8_E8M0": 1, "C64": 8}[dtype]
    path.write_bytes(safetensors_bytes({"a": entry([3], dtype=dtype, end=3 * size)}, bytes(3 * size)))
    refused(path, "tensor a in", f"has the type {dtype}", "use one of F64, F32, F16, BF16")


def test_too_many_tensors_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(safetensors_bytes({f"t{n}": entry([0]) for n in range(MAX_TENSORS + 1)}))
    refused(path, "has 20,001 tensors; at most 20,000 make a checkpoint")


@pytest.mark.timeout(200)
def test_two_hundred_thousand_empty_tensors_are_refused_before_they_are_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    entries = ",".join(f'"t{n}":{{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}' for n in range(200_000))
    path.write_bytes(safetensors_bytes(f"{{{entries}}}".encode()))
    monkeypatch.setattr("licht.checkpoint.reader.safe_open", lambda *args, **more: pytest.fail("it was parsed"))
    refused(path, "has a header of", f"at most {MAX_HEADER_BYTES:,} are read", "such a file is not loaded")


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    one, two = write(tmp_path, "1.safetensors", a=torch.ones(2)), write(tmp_path, "2.safetensors", a=torch.ones(2))
    with pytest.raises(InvalidCheckpoint, match=f"tensor a is in {re.escape(str(two))} and in another shard"):
        TensorSource((one, two))


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        (None, "has no weight_map from tensor to shard"),
        ([], "has no weight_map from tensor to shard"),
        ({"a": 1}, "has no weight_map from tensor to shard"),
        ({"a": "model-3.safetensors"}, "names the shard 'model-3.safetensors', which is not beside it"),
        ({"a": "../model-1.safetensors"}, "names the shard '../model-1.safetensors', which is not beside it"),
        ({"a": ""}, "names the shard '', which is not beside it"),
        ({"a": "x\0y"}, "names the shard 'x\\x00y', which is not beside it"),
        ({"a": "\ud800"}, "cannot be read as JSON"),
        ({"a": "model-1.safetensors", "z": "model-1.safetensors"}, "and its shards disagree on z"),
        ({"a": "model-1.safetensors", "b": "model-2.safetensors"}, "and its shards disagree on c"),
        ({f"x{n}": "model-1.safetensors" for n in range(9)}, "disagree on a, x0, x1 and 7 more"),
        (
            {"a": "model-2.safetensors", "b": "model-1.safetensors", "c": "model-2.safetensors"},
            "has a, b in another shard than the one that holds it",
        ),
    ],
)
def test_a_wrong_index_is_refused(tmp_path: Path, weight_map: object, message: str) -> None:
    folder = tmp_path / "part"
    folder.mkdir()
    write_shards(folder).write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
    write(tmp_path, "model-1.safetensors", a=torch.ones(2))
    refused(folder, "model.safetensors.index.json", message, "copy")


def test_shards_that_are_mixed_up_are_refused(tmp_path: Path) -> None:
    write_shards(tmp_path)
    one, two = tmp_path / "model-1.safetensors", tmp_path / "model-2.safetensors"
    one.rename(tmp_path / "kept")
    two.rename(one)
    (tmp_path / "kept").rename(two)
    refused(tmp_path, "has a, b, c in another shard", "copy all of them again")


def test_a_truncated_shard_is_named(tmp_path: Path) -> None:
    write_shards(tmp_path)
    shard = tmp_path / "model-2.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1])
    refused(tmp_path, str(shard), "is not a complete safetensors file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"", "cannot be read as JSON"),
        (b"{", "cannot be read as JSON"),
        (b"\xff\xfe", "cannot be read as JSON"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b'{"a": "\\ud800"}', "cannot be read as JSON"),
        (b"[1]", "holds a JSON list; expected an object"),
        (b"null", "holds a JSON NoneType; expected an object"),
    ],
)
def test_json_that_is_no_object_is_refused(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(InvalidCheckpoint, match=re.escape(message)):
        read_json(path)


def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path)

    def denied(*args: object, **more: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    refused(path, "cannot be read", "Permission denied", "check its permissions")
