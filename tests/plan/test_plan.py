import json
from dataclasses import replace

import pytest

from licht.core.errors import InvalidRequest
from licht.core.sizes import Size
from licht.model.variants import VARIANTS
from licht.plan import table
from licht.plan.plan import CPU, GPU, Machine, Residency, alternatives, choose, make_plan, setups
from licht.plan.work import Request

GIB = 2**30
REQUEST = Request(Size(1024, 1024))


def gpu(memory_gib: float) -> Machine:
    return replace(GPU, memory_bytes=int(memory_gib * GIB))


def test_more_memory_keeps_more_loaded() -> None:
    found = {
        memory: choose(VARIANTS["klein-4b"], REQUEST, gpu(memory), "none", "bfloat16").setup.residency
        for memory in (8, 12, 24)
    }
    assert found == {8: Residency.STREAMED, 12: Residency.IN_TURN, 24: Residency.RESIDENT}


def test_plans_get_smaller_and_slower() -> None:
    plans = [make_plan(VARIANTS["dev"], REQUEST, gpu(24), setup) for setup in setups("none", "bfloat16")]
    peaks = [plan.peak_bytes for plan in plans]
    assert peaks == sorted(peaks, reverse=True)
    assert plans[-1].seconds > plans[0].seconds
    assert not plans[0].fits
    assert plans[-1].fits


def test_the_peak_is_the_largest_stage_and_holds_what_is_loaded() -> None:
    plan = make_plan(VARIANTS["klein-9b"], REQUEST, gpu(80), next(setups("none", "bfloat16")))
    assert [stage.name for stage in plan.stages] == ["encode_prompt", "denoise", "decode"]
    assert plan.peak_bytes == max(stage.peak_bytes for stage in plan.stages)
    assert all(set(stage.parts) == {"text tower", "transformer", "autoencoder"} for stage in plan.stages)
    assert plan.stages[1].parts["transformer"] == 2 * VARIANTS["klein-9b"].transformer.parameters
    referenced = make_plan(VARIANTS["klein-9b"], replace(REQUEST, images=2), gpu(80), plan.setup)
    assert "encode_references" in [stage.name for stage in referenced.stages]
    assert referenced.peak_bytes > plan.peak_bytes


def test_alternatives_fit() -> None:
    variant = VARIANTS["dev"]
    plan = choose(variant, REQUEST, gpu(24), "none", "bfloat16")
    others = alternatives(plan, variant)
    assert [other.setup.form for other in others] == ["fp8", "q4"]
    assert all(other.fits for other in others)
    tight = choose(VARIANTS["klein-4b"], Request(Size(2048, 2048)), gpu(3), "none", "bfloat16")
    assert not tight.fits
    (smaller,) = alternatives(tight, VARIANTS["klein-4b"])
    assert smaller.fits
    assert smaller.request.size < Size(2048, 2048)
    hopeless = choose(variant, REQUEST, gpu(1), "none", "bfloat16")
    assert not hopeless.fits
    assert alternatives(hopeless, variant) == []


def test_a_processor_cannot_stream_what_it_quantises() -> None:
    small = replace(CPU, memory_bytes=12 * GIB)
    plan = choose(VARIANTS["dev"], REQUEST, small, "q4", "bfloat16")
    assert not plan.fits
    assert plan.setup.residency is Residency.IN_TURN
    assert choose(VARIANTS["dev"], REQUEST, small, "none", "bfloat16").fits


def test_stored_formats_of_both_networks_count() -> None:
    variant, room = VARIANTS["klein-4b"], replace(CPU, memory_bytes=64 * GIB, native=("int8",))
    plain = choose(variant, REQUEST, room, "none", "bfloat16")
    small = choose(variant, REQUEST, room, "none", "bfloat16", "int8", stored_tower="int8")
    for part in ("text tower", "transformer"):
        assert 0.49 < small.stages[1].parts[part] / plain.stages[1].parts[part] < 0.56
    mixed = choose(variant, REQUEST, room, "none", "bfloat16", "int8")
    assert mixed.stages[0].parts["text tower"] == plain.stages[0].parts["text tower"]
    assert small.seconds < plain.seconds


def test_a_mapped_embedding_is_not_counted_and_streaming_hides_behind_arithmetic() -> None:
    variant = VARIANTS["klein-4b"]
    on_gpu = make_plan(variant, REQUEST, gpu(80), next(setups("none", "bfloat16")))
    on_cpu = make_plan(variant, REQUEST, replace(CPU, memory_bytes=2**40), next(setups("none", "bfloat16")))
    tower = variant.text.tower
    embedding = on_gpu.stages[0].parts["text tower"] - on_cpu.stages[0].parts["text tower"]
    assert embedding == 2 * tower.vocab_size * tower.hidden_size
    streamed = list(setups("none", "bfloat16"))[-1]
    slow = make_plan(variant, REQUEST, replace(gpu(80), streamed_bytes_per_s=1e9), streamed)
    hidden = make_plan(variant, REQUEST, replace(gpu(80), streamed_bytes_per_s=1e13), streamed)
    assert hidden.stages[1].seconds == on_gpu.stages[1].seconds
    assert slow.stages[1].seconds > 10 * hidden.stages[1].seconds


def test_a_batch_and_loras_take_more() -> None:
    variant, setup = VARIANTS["klein-4b"], next(setups("none", "bfloat16"))
    one = make_plan(variant, replace(REQUEST, num=4), gpu(80), setup)
    four = make_plan(variant, replace(REQUEST, num=4), gpu(80), setup, batch=4)
    assert four.stages[1].work_bytes - one.stages[1].work_bytes > 2 * (one.stages[1].work_bytes - GPU.overhead_bytes)
    adapted = make_plan(variant, replace(REQUEST, num=4, lora_bytes=GIB), gpu(80), setup)
    assert adapted.peak_bytes == one.peak_bytes + GIB
    assert adapted.weights_bytes == one.weights_bytes + GIB
    in_turn = make_plan(variant, adapted.request, gpu(80), list(setups("none", "bfloat16"))[1])
    assert [stage.parts.get("LoRA", 0) for stage in in_turn.stages] == [0, GIB, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("12GiB", 12 * GIB), ("16GB", 16 * 10**9), ("1.5g", GIB * 3 // 2), ("500 MB", 500 * 10**6), ("1024", 1024)],
)
def test_amounts_of_memory(text: str, expected: int) -> None:
    assert table.parse_memory(text) == expected


@pytest.mark.parametrize("text", ["", "much", "-3GiB", "0GiB", "12XB", "1e9", "12GiB 3"])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InvalidRequest, match="use for example 12GiB"):
        table.parse_memory(text)


def test_the_table_says_everything() -> None:
    variant = VARIANTS["dev"]
    plan = choose(variant, replace(REQUEST, images=2), gpu(16), "none", "bfloat16")
    lines = table.lines(plan, alternatives(plan, variant))
    text = "\n".join(lines)
    assert "dev: 1 x 1024x1024, 2 references (bfloat16, streamed, decoder in bands)" in text
    assert lines[1].startswith("fits: at most ")
    assert lines[1].endswith("of 16.0 GiB are in use at a time")
    assert lines[2].endswith("on gpu; rates are assumed; --calibrate measures them")
    assert lines[3].startswith("all weights together: 92.5 GiB; where main memory cannot hold them")
    assert max(len(line) for line in lines) < 110
    tight = choose(variant, REQUEST, gpu(1), "none", "bfloat16")
    assert "does NOT fit" in "\n".join(table.lines(tight, []))
    said = json.loads(json.dumps(table.as_json(plan, alternatives(plan, variant))))
    assert said["fits"] is True
    assert said["peak_bytes"] == plan.peak_bytes
    assert [stage["stage"] for stage in said["stages"]] == ["encode_prompt", "encode_references", "denoise", "decode"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (5, "5.0 s"), (30, "30 s"), (600, "10 min"), (9000, "2.5 h")]
)
def test_durations(seconds: float, text: str) -> None:
    assert table.duration(seconds) == text
