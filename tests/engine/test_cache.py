"""What was computed once is not computed again, and is the same to the last bit."""

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement
from licht.core.errors import InvalidSettings
from licht.core.request import ImageRequest, ImageResult, Progress
from licht.core.sizes import Size
from licht.engine import stages
from licht.engine.cache import CacheChoice, TensorCache, arithmetic, digest_of, key_of, weights_identity
from licht.engine.engine import Choice, Engine
from licht.model.variants import Kind
from tests.support.pictures import reference

Files = Mapping[Kind, ModelFiles]
REFERENCES = (reference(64, 64, 1), reference(80, 64, 2))


def tensor(seed: int, count: int = 256) -> Tensor:
    """1 kB by default."""
    return torch.randn(count, generator=torch.Generator().manual_seed(seed))


def same(found: Mapping[str, Tensor] | None, wanted: Mapping[str, Tensor]) -> bool:
    return (
        found is not None
        and found.keys() == wanted.keys()
        and all(found[name].dtype == wanted[name].dtype and torch.equal(found[name], wanted[name]) for name in wanted)
    )


def test_the_least_recently_used_goes_first() -> None:
    cache = TensorCache(CacheChoice(memory_bytes=3000))
    for name in "ab":
        cache.put(name, {"x": tensor(ord(name))})
    assert same(cache.get("a"), {"x": tensor(ord("a"))})
    cache.put("c", {"x": tensor(1)})
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.memory_bytes == 2048
    cache.put("a", {"x": tensor(2, 128)})
    assert (cache.memory_bytes, same(cache.get("a"), {"x": tensor(2, 128)})) == (1536, True)
    cache.put("huge", {"x": tensor(3, 1000)})
    assert (cache.get("huge"), cache.memory_bytes) == (None, 1536)
    cache.clear()
    assert (cache.get("a"), cache.memory_bytes) == (None, 0)


def test_a_folder_outlives_the_process_and_keeps_every_bit(tmp_path: Path) -> None:
    made = {"x": tensor(1).bfloat16(), "y": torch.tensor([float("nan"), -0.0, 1e-45]), "z": torch.arange(5)}
    choice = CacheChoice(0, tmp_path / "made" / "here")
    TensorCache(choice).put("k", made)
    found = TensorCache(choice).get("k")
    assert found is not None
    assert digest_of(*found.values()) == digest_of(*(made[name] for name in found))
    assert found["x"].dtype == torch.bfloat16
    assert [path.name for path in choice.folder.iterdir()] == ["k.safetensors"] if choice.folder else False


def damage_middle(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(bytes(data))


DAMAGES: Mapping[str, Callable[[Path], object]] = {
    "one bit": damage_middle,
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-100]),
    "empty": lambda path: path.write_bytes(b""),
    "something else": lambda path: path.write_bytes(b"\x00" * 4096),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_deleted_with_a_warning(tmp_path: Path, damage: str) -> None:
    choice = CacheChoice(0, tmp_path)
    TensorCache(choice).put("k", {"x": tensor(1)})
    DAMAGES[damage](tmp_path / "k.safetensors")
    cache = TensorCache(choice)
    assert cache.get("k") is None
    (warning,) = cache.take_warnings()
    assert "k.safetensors in the cache is damaged" in warning
    assert "deleted and computed anew" in warning
    assert list(tmp_path.iterdir()) == []
    assert cache.take_warnings() == ()
    cache.put("k", {"x": tensor(1)})
    assert same(TensorCache(choice).get("k"), {"x": tensor(1)})


def test_a_folder_is_bounded_by_bytes(tmp_path: Path) -> None:
    cache = TensorCache(CacheChoice(0, tmp_path, folder_bytes=3000))
    for number, name in enumerate("ab"):
        cache.put(name, {"x": tensor(number)})
        os.utime(tmp_path / f"{name}.safetensors", (number, number))
    assert cache.get("a") is not None  # its time is now
    cache.put("c", {"x": tensor(3)})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c"]
    cache.put("huge", {"x": tensor(4, 1000)})
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c"]


def test_a_folder_that_cannot_be_written_costs_a_warning_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = TensorCache(CacheChoice(10_000, tmp_path / "file"))
    cache.put("k", {"x": tensor(1)})
    (warning,) = cache.take_warnings()
    assert "cannot be written" in warning
    assert same(cache.get("k"), {"x": tensor(1)})


def test_sizes_below_nothing_are_refused() -> None:
    with pytest.raises(InvalidSettings, match="a cache cannot hold less than 0 bytes"):
        CacheChoice(-1)


def test_keys_tell_everything_apart() -> None:
    assert key_of("a", 1, "x") == key_of("a", 1, "x")
    assert len({key_of("a", 1, "x"), key_of("a", "1", "x"), key_of("a", 1, "x", None), key_of("b", 1, "x")}) == 4
    assert digest_of(tensor(1)) != digest_of(tensor(1).reshape(2, 128))
    assert digest_of(tensor(1)) != digest_of(tensor(1).view(torch.int32))


def test_weights_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path, middle in ((one, b"a"), (other, b"b")):
        path.write_bytes(bytes(3_000_000) + middle + bytes(3_000_000))
        os.utime(path, (1, 1))
    assert weights_identity([one]) == weights_identity([one])
    assert weights_identity([one]) != weights_identity([other])
    before = weights_identity([one])
    os.utime(one, (2, 2))
    assert weights_identity([one]) != before
    assert weights_identity([one, other]) == weights_identity([other, one])


def test_another_machine_or_format_is_another_key() -> None:
    cpu = torch.device("cpu")
    exact, rough = (arithmetic(Placement(cpu, dtype)) for dtype in (torch.float32, torch.bfloat16))
    assert exact != rough
    assert exact != arithmetic(Placement(cpu, torch.float32, "int8"))
    assert torch.__version__ in exact


class Counted:
    """How often each stage computes."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.calls: dict[str, int] = {}
        for name in ("encode_prompt", "encode_reference", "cache_references"):
            patch.setattr(stages, name, self._counting(name, getattr(stages, name)))

    def _counting(self, name: str, stage: Callable[..., object]) -> Callable[..., object]:
        def counted(*args: object) -> object:
            self.calls[name] = self.calls.get(name, 0) + 1
            return stage(*args)

        return counted

    def taken(self) -> dict[str, int]:
        """Since last asked."""
        taken, self.calls = self.calls, {}
        return taken


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Counted:
    return Counted(monkeypatch)


def engine(files: ModelFiles, **choice: Any) -> Engine:  # noqa: ANN401 - whatever a cache can be told
    return Engine(files, Choice("cpu", "float32", cache=CacheChoice(**choice)))


def run(made: Engine, prompt: str = "a cat", **fields: Any) -> tuple[bytes, tuple[str, ...]]:  # noqa: ANN401
    asked = {"references": REFERENCES, "size": Size(64, 64), **fields}
    (result,) = [event for event in made.run(ImageRequest(prompt, (1,), **asked)) if isinstance(event, ImageResult)]
    return result.picture.rgb, result.warnings


@pytest.mark.parametrize("kind", list(Kind))
def test_a_hit_is_a_miss_bit_by_bit(files: Files, kind: Kind, counted: Counted, tmp_path: Path) -> None:
    prompts = {"encode_prompt": 2 if kind is Kind.BASE else 1}
    everything = {**prompts, "encode_reference": 2, **({"cache_references": 1} if kind is Kind.KV else {})}
    without, _ = run(engine(files[kind], memory_bytes=0))
    assert counted.taken() == everything
    kept = engine(files[kind], folder=tmp_path)
    assert run(kept) == (without, ())
    assert counted.taken() == everything
    assert run(kept) == (without, ())
    assert counted.taken() == {}
    read = engine(files[kind], folder=tmp_path)
    assert run(read) == (without, ())
    assert counted.taken() == {}
    assert read._tower is None


def test_only_what_changed_is_computed_again(files: Files, counted: Counted) -> None:
    made = engine(files[Kind.KV])
    run(made)
    counted.taken()
    run(made, "a dog")
    assert counted.taken() == {"encode_prompt": 1}
    run(made, references=REFERENCES[::-1])
    assert counted.taken() == {"cache_references": 1}
    run(made, references=(REFERENCES[0], reference(64, 64, 9)))
    assert counted.taken() == {"encode_reference": 1, "cache_references": 1}
    run(made, references=tuple(replace(one, strength=2.0) for one in REFERENCES))
    assert counted.taken() == {}
    run(made, references=(REFERENCES[0], replace(REFERENCES[1], strength=0.0)))
    assert counted.taken() == {"cache_references": 1}


def test_damage_in_the_folder_is_said_with_the_picture(files: Files, tmp_path: Path) -> None:
    without, _ = run(engine(files[Kind.KV], folder=tmp_path))
    written = sorted(tmp_path.iterdir())
    assert len(written) == 4  # a prompt, two pictures, their keys and values
    for path in written:
        damage_middle(path)
    picture, warnings = run(engine(files[Kind.KV], folder=tmp_path))
    assert picture == without
    assert len(warnings) == 4
    assert run(engine(files[Kind.KV], folder=tmp_path)) == (without, ())


def test_one_model_does_not_use_what_another_kept(files: Files, counted: Counted, tmp_path: Path) -> None:
    run(engine(files[Kind.KLEIN], folder=tmp_path))
    counted.taken()
    rough = Engine(files[Kind.KLEIN], Choice("cpu", "bfloat16", cache=CacheChoice(folder=tmp_path)))
    run(rough)
    assert counted.taken() == {"encode_prompt": 1, "encode_reference": 2}


def test_progress_is_the_same_for_a_hit(files: Files) -> None:
    made = engine(files[Kind.KV])
    asked = ImageRequest("a cat", (1,), REFERENCES, Size(64, 64))
    first, second = ([event for event in made.run(asked) if isinstance(event, Progress)] for _ in range(2))
    assert first == second
