import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from licht.checkpoint.folder import ModelFiles, read_folder
from licht.checkpoint.reader import TensorSource
from licht.core.errors import InvalidCheckpoint, InvalidRequest, LichtError, NotAvailable, OutOfMemory
from licht.core.request import ImageRequest, ImageResult, Picture, Preview, Progress
from licht.core.sizes import Size
from licht.engine import stages
from licht.engine.engine import Choice, Engine, Stopwatch
from licht.engine.memory import peak_memory_bytes
from licht.model.transformer import Flux2Transformer
from licht.model.variants import VARIANTS, Kind
from tests.engine.conftest import Fresh
from tests.support import raw
from tests.support.pictures import pixels, reference

Engines = Mapping[Kind, Engine]


def request(**fields: Any) -> ImageRequest:  # noqa: ANN401 - whatever a request has
    return ImageRequest(**{"prompt": "a cat", "seeds": (1,), "size": Size(64, 64), **fields})


def results(engine: Engine, made: ImageRequest) -> list[ImageResult]:
    return [event for event in engine.run(made) if isinstance(event, ImageResult)]


def draw(engine: Engine, **fields: Any) -> Picture:  # noqa: ANN401
    (result,) = results(engine, request(**fields))
    return result.picture


def difference(one: Picture, other: Picture) -> int:
    """The largest difference of a pixel."""
    return int(np.abs(pixels(one).astype(int) - pixels(other)).max())


def timeline(engine: Engine, made: ImageRequest) -> list[str]:
    """Every event in a short form: stage done/total of picture, or the seed of a result."""
    return [_short(event) for event in engine.run(made)]


def _short(event: Progress | Preview | ImageResult) -> str:
    if isinstance(event, Progress):
        return f"{event.stage} {event.done}/{event.total} #{event.picture}"
    return f"seed {event.seed}" if isinstance(event, ImageResult) else f"preview {event.step}/{event.total}"


PROMPT = ["encode_prompt 0/1 #0", "encode_prompt 1/1 #0"]
REFERENCES = ["encode_references 0/2 #0", "encode_references 1/2 #0", "encode_references 2/2 #0"]
CACHE = ["cache_references 0/1 #0", "cache_references 1/1 #0"]
FIRST = ["denoise 0/2 #0", "denoise 1/2 #0", "denoise 2/2 #0"]
SECOND = ["denoise 0/2 #1", "denoise 1/2 #1", "denoise 2/2 #1"]


@pytest.mark.parametrize("kind", list(Kind))
def test_progress_comes_in_the_order_of_the_work(engines: Engines, kind: Kind) -> None:
    plain = [*PROMPT, *FIRST, "decode 0/1 #0", "decode 1/1 #0", "seed 1"]
    assert timeline(engines[kind], request()) == plain
    edit = [*PROMPT, *REFERENCES, *(CACHE if kind is Kind.KV else []), *plain[2:]]
    assert timeline(engines[kind], request(references=(reference(), reference(80, 64, 1)))) == edit


def test_pictures_come_one_after_the_other(fresh: Fresh) -> None:
    assert timeline(fresh(batch_size=1), request(seeds=(7, 3))) == [
        *PROMPT,
        *(*FIRST, "decode 0/1 #0", "decode 1/1 #0", "seed 7"),
        *(*SECOND, "decode 0/1 #1", "decode 1/1 #1", "seed 3"),
    ]


def test_a_batch_is_denoised_together(fresh: Fresh) -> None:
    assert timeline(fresh(batch_size=2), request(seeds=(7, 3, 5))) == [
        *PROMPT,
        *(*FIRST, "decode 0/1 #0", "decode 1/1 #0", "seed 7", "decode 0/1 #1", "decode 1/1 #1", "seed 3"),
        *("denoise 0/2 #2", "denoise 1/2 #2", "denoise 2/2 #2", "decode 0/1 #2", "decode 1/1 #2", "seed 5"),
    ]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_result_says_how_it_was_made(engines: Engines, kind: Kind) -> None:
    (result,) = results(engines[kind], request(size=Size(64, 96), steps=3, seeds=(2**63 - 1,)))
    assert (result.seed, result.steps, result.native_size, result.warnings) == (2**63 - 1, 3, Size(64, 96), ())
    assert result.guidance == (4.0 if kind in (Kind.BASE, Kind.DEV) else None)
    assert result.picture.size == Size(64, 96)
    assert pixels(result.picture).std() > 5


class Calls:
    """Counts the passes through the transformer, and keeps their batch sizes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        forward = Flux2Transformer.forward

        def counted(network: Flux2Transformer, x: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:  # noqa: ANN401
            self.batches.append(x.shape[0])
            return forward(network, x, *args, **more)

        monkeypatch.setattr(Flux2Transformer, "forward", counted)


@pytest.mark.parametrize("steps_done", [0, 1, 3])
def test_closing_cancels_within_one_step(engines: Engines, monkeypatch: pytest.MonkeyPatch, steps_done: int) -> None:
    calls = Calls(monkeypatch)
    events = engines[Kind.KLEIN].run(request(steps=10, seeds=(1, 2)))
    for event in events:
        if isinstance(event, Progress) and (event.stage, event.done) == ("denoise", steps_done):
            break
    events.close()
    assert len(calls.batches) == steps_done
    assert list(events) == []
    assert results(engines[Kind.KLEIN], request())[0].seed == 1  # it still works


@pytest.mark.parametrize("stage", ["encode_prompt", "encode_references", "cache_references", "denoise", "decode"])
def test_it_can_be_cancelled_in_every_stage(engines: Engines, stage: str) -> None:
    events = engines[Kind.KV].run(request(references=(reference(),)))
    seen = next(event for event in events if isinstance(event, Progress) and event.stage == stage)
    events.close()
    assert seen.done == 0
    assert next(events, None) is None


def test_nothing_happens_before_the_first_event_is_taken(fresh: Fresh, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = fresh()
    monkeypatch.setattr(TensorSource, "tensor", lambda *args: pytest.fail("a weight was read"))
    events = engine.run(request(references=(reference(),) * 4))
    with pytest.raises(InvalidRequest, match="4 reference images"):
        next(events)
    assert next(engine.run(request())) == Progress("encode_prompt", 0, 1)


@pytest.mark.parametrize("kind", list(Kind))
def test_a_seed_gives_the_same_picture_alone_and_in_a_batch(fresh: Fresh, kind: Kind) -> None:
    references = (reference(),)
    alone = [draw(fresh(kind), seeds=(seed,), references=references) for seed in (4, 9, 4)]
    together = [made.picture for made in results(fresh(kind, 3), request(seeds=(4, 9, 4), references=references))]
    assert alone[0] == alone[2]
    assert difference(alone[0], alone[1]) > 20
    for one, other in zip(alone, together, strict=True):
        assert difference(one, other) <= 1


@pytest.mark.parametrize("kind", list(Kind))
def test_everything_that_is_asked_for_matters(engines: Engines, kind: Kind) -> None:
    engine, one, other = engines[kind], reference(), reference(seed=5)
    pictures = [
        draw(engine),
        draw(engine, prompt="a dog"),
        draw(engine, seeds=(2,)),
        draw(engine, steps=3),
        draw(engine, references=(one,)),
        draw(engine, references=(other,)),
        draw(engine, references=(one, other)),
        draw(engine, references=(other, one)),
    ]
    if kind in (Kind.BASE, Kind.DEV):
        pictures += [draw(engine, guidance=1.0), draw(engine, guidance=8.0)]
    hashes = {made.content_hash() for made in pictures}
    assert len(hashes) == len(pictures)
    assert draw(engine) == pictures[0]


def test_a_base_model_makes_two_passes_in_one_batch_unless_its_scale_is_one(
    engines: Engines, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    results(engines[Kind.BASE], request(guidance=3.0))
    results(engines[Kind.BASE], request(guidance=1.0))
    results(engines[Kind.DEV], request(guidance=3.0))
    assert calls.batches == [2, 2, 1, 1, 1, 1]


def test_scale_zero_is_the_unconditional_picture(engines: Engines) -> None:
    unconditional = draw(engines[Kind.BASE], guidance=0.0)
    assert difference(unconditional, draw(engines[Kind.BASE], guidance=0.0, prompt="a dog")) == 0
    assert difference(unconditional, draw(engines[Kind.BASE], guidance=1.0, prompt="")) <= 1


def test_cached_references_are_encoded_once_and_not_denoised(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    forward = Flux2Transformer.forward

    def watched(network: Flux2Transformer, x: torch.Tensor, *args: Any, **more: Any) -> torch.Tensor:  # noqa: ANN401
        lengths.append(x.shape[1])
        return forward(network, x, *args, **more)

    monkeypatch.setattr(Flux2Transformer, "forward", watched)
    results(engines[Kind.KV], request(references=(reference(),)))
    results(engines[Kind.KLEIN], request(references=(reference(),)))
    assert lengths == [16, 16, 32, 32]


def test_a_size_beyond_the_trained_ones_is_drawn_smaller_and_enlarged(engines: Engines) -> None:
    (large,) = results(engines[Kind.KLEIN], request(size=Size(256, 128)))
    (native,) = results(engines[Kind.KLEIN], request(size=Size(128, 64)))
    assert (large.picture.size, large.native_size) == (Size(256, 128), Size(128, 64))
    assert large.warnings == ("tiny-klein was trained up to 128x64: drawn at 128x64, enlarged to 256x128",)
    shrunk = pixels(large.picture)[::2, ::2].astype(int)
    assert np.abs(shrunk - pixels(native.picture)).mean() < 20
    with pytest.raises(InvalidRequest, match="drop --native-only"):
        results(engines[Kind.KLEIN], request(size=Size(256, 128), native_only=True))


def test_a_prompt_that_is_cut_is_said_to_be(engines: Engines) -> None:
    (result,) = results(engines[Kind.KLEIN], request(prompt="x" * 50))
    message = "the prompt is too long for tiny-klein: the first 40 of 75 tokens were used"
    assert result.warnings == (message,)
    # the template's own end is cut as well, so that only the beginning of the prompt is left to matter
    assert draw(engines[Kind.KLEIN], prompt="x" * 50) == draw(engines[Kind.KLEIN], prompt="x" * 50 + "y")


@pytest.mark.parametrize("kind", [Kind.KLEIN, Kind.KV])
def test_guidance_on_a_distilled_model_is_refused(engines: Engines, kind: Kind) -> None:
    with pytest.raises(InvalidRequest, match="is distilled and takes no guidance scale"):
        results(engines[kind], request(guidance=4.0))


NETWORKS = ("_tokenizer", "_tower", "_autoencoder", "_transformer")


def loaded(engine: Engine) -> list[str]:
    return [name for name in NETWORKS if getattr(engine, name) is not None]


def test_weights_are_read_when_they_are_needed_and_let_go(fresh: Fresh) -> None:
    engine = fresh(Kind.BASE)
    events = engine.run(request())
    assert next(events) == Progress("encode_prompt", 0, 1)
    assert loaded(engine) == []
    next(events)
    assert loaded(engine) == ["_tokenizer", "_tower"]
    before = next(event for event in events if isinstance(event, ImageResult)).picture
    assert loaded(engine) == [*NETWORKS]
    engine.unload()
    assert loaded(engine) == []
    assert draw(engine) == before


def test_broken_weights_are_found_when_they_are_read(files: Mapping[Kind, ModelFiles], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(files[Kind.KLEIN].parts.transformer.parent, tmp_path / "broken"))
    raw.rewrite(folder / "vae", {"decoder.conv_in.bias": torch.full((12,), float("nan"))})
    events = Engine(read_folder(folder), Choice("cpu", "float32")).run(request())
    with pytest.raises(
        InvalidCheckpoint, match=r"tensor decoder\.conv_in\.bias in .* has 12 values that are not finite"
    ):
        list(events)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_running_out_of_memory_is_one_line(engines: Engines, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*args: object) -> None:
        raise error

    monkeypatch.setattr(stages, "decode", fail)
    with pytest.raises(OutOfMemory, match="cpu ran out of memory; ask for a smaller size or fewer references"):
        results(engines[Kind.KLEIN], request())


def test_a_real_shortage_is_recognised(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "decode", lambda *args: torch.empty(2**50))
    with pytest.raises(OutOfMemory, match="cpu ran out of memory"):
        results(engines[Kind.KLEIN], request())


def test_defects_are_not_taken_for_a_shortage(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "decode", lambda *args: torch.zeros(2) @ torch.zeros(3))
    with pytest.raises(RuntimeError, match=r"inconsistent tensor size|size mismatch|must match"):
        results(engines[Kind.KLEIN], request())


def test_a_picture_that_is_not_finite_is_an_error(engines: Engines, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "licht.model.autoencoder.Autoencoder.decode", lambda *args: torch.full((1, 3, 64, 64), float("nan"))
    )
    with pytest.raises(LichtError, match="the model produced values that are not finite"):
        results(engines[Kind.KLEIN], request())


@pytest.mark.parametrize(
    "name", ["gpu", "", "CPU", "cpu:0", "cuda:", "cuda:x", "cuda:-1", "cuda:9999", "mps:0", "meta"]
)
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(
        InvalidRequest, match=re.escape(f"device {name!r} is unknown; use auto, cpu, cuda, cuda:N")
    ) as e:
        Choice(name).placement(VARIANTS["dev"])
    assert e.value.field == "device"


@pytest.mark.parametrize(("name", "devices"), [("cuda", 0), ("cuda:0", 0), ("cuda:2", 2), ("mps", 0)])
def test_a_device_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, devices: int) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: devices)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    message = f"device '{name}' is not available on this machine; use --device auto"
    with pytest.raises(NotAvailable, match=re.escape(message)) as caught:
        Choice(name).placement(VARIANTS["dev"])
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("cuda", "mps", "device"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_takes_the_fastest_device(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert Choice().placement(VARIANTS["dev"]).device == torch.device(device)


def test_a_device_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert Choice("cuda:1").placement(VARIANTS["dev"]).device == torch.device("cuda:1")
    assert Choice("cpu").placement(VARIANTS["dev"]).device == torch.device("cpu")


def test_small_models_are_exact_on_a_processor_and_large_ones_are_not(files: Mapping[Kind, ModelFiles]) -> None:
    assert Choice("cpu").placement(files[Kind.KLEIN].variant).dtype == torch.float32
    assert Choice("cpu").placement(VARIANTS["klein-4b"]).dtype == torch.bfloat16
    assert Choice("cpu", "float32").placement(VARIANTS["klein-4b"]).dtype == torch.float32
    assert Choice("cpu", "bfloat16").placement(files[Kind.KLEIN].variant).dtype == torch.bfloat16


@pytest.mark.parametrize("dtype", ["fp8", "float16", "", "torch.float32"])
def test_an_unknown_dtype_is_refused(dtype: str) -> None:
    with pytest.raises(InvalidRequest, match=re.escape(f"dtype {dtype!r} is unknown; use auto, float32 or bfloat16")):
        Choice("cpu", dtype).placement(VARIANTS["dev"])


def test_bfloat16_draws_nearly_the_same(files: Mapping[Kind, ModelFiles], engines: Engines) -> None:
    rounded = draw(Engine(files[Kind.KLEIN], Choice("cpu", "bfloat16")))
    exact = draw(engines[Kind.KLEIN])
    assert np.abs(pixels(rounded).astype(int) - pixels(exact)).mean() < 12


def test_a_stopwatch_books_time_to_the_stage_that_took_it(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 1.0, 3.0, 3.5, 4.0, 6.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    watch = Stopwatch()
    for stage, done in (("encode_prompt", 0), ("encode_prompt", 1), ("denoise", 0), ("denoise", 1), ("denoise", 2)):
        watch.see(Progress(stage, done, 2))
    assert watch.seconds == {"encode_prompt": 2.0, "denoise": 2.5}


def test_peak_memory_is_measured() -> None:
    assert 10**7 < peak_memory_bytes(torch.device("cpu")) < 10**12
