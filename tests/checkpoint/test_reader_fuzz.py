"""Hostile headers: whatever the bytes are, the answer is a checked source or `InvalidCheckpoint`, and soon."""

import json
import re
import struct
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from licht.checkpoint.reader import MAX_TENSORS, TensorSource, open_source
from licht.core.errors import InvalidCheckpoint
from tests.support.raw import safetensors_bytes

VALID = save(
    {"double_blocks.0.img_attn.qkv.weight": torch.ones(3, 2), "bn.running_mean": torch.zeros(4), "x": torch.zeros(())},
    {"format": "pt", "licht.kind": "klein"},
)
HEADER_BYTES = 8 + struct.unpack("<Q", VALID[:8])[0]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
names = st.sampled_from(["a", "b.weight", "../x", "a/b", "\0", "", "__metadata__", "é", "a" * 300]) | st.text(
    max_size=6
)
entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "I64", "F8_E4M3", "F99", ""]) | json_values,
        "shape": st.lists(st.integers(-1, 2**64), max_size=4) | st.just([2]) | json_values,
        "data_offsets": st.lists(st.integers(0, 40), min_size=2, max_size=2) | json_values,
    }
)
headers = st.dictionaries(names, entries | json_values, max_size=4)


def opened(path: Path) -> TensorSource | InvalidCheckpoint:
    try:
        return open_source(path)
    except InvalidCheckpoint as error:
        return error


def read(data: bytes) -> None:
    """Either a source whose every tensor has its promised shape, or one clear line."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.safetensors"
        path.write_bytes(data)
        source = opened(path)
        if isinstance(source, InvalidCheckpoint):
            assert str(path) in source.message
            assert source.message.isprintable()
            return
        assert len(source.infos) <= MAX_TENSORS
        for name, info in source.infos.items():
            assert re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._\-]{0,255}", name)
            tensor = source.tensor(name)
            assert tuple(tensor.shape) == info.shape
            assert tensor.dtype == info.dtype
            assert info.memory_bytes <= len(data)


fuzzed = settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])


@fuzzed
@given(st.lists(st.tuples(st.integers(0, HEADER_BYTES - 1), st.integers(0, 255)), min_size=1, max_size=6))
def test_changed_bytes(changes: list[tuple[int, int]]) -> None:
    data = bytearray(VALID)
    for place, value in changes:
        data[place] = value
    read(bytes(data))


@fuzzed
@given(st.integers(0, len(VALID)), st.binary(max_size=12))
@example(len(VALID), b"")
def test_truncated_and_continued(kept: int, rest: bytes) -> None:
    read(VALID[:kept] + rest)


@fuzzed
@given(headers, st.binary(max_size=40), st.none() | st.integers(0, 2**64 - 1))
def test_hostile_headers(header: dict[str, object], data: bytes, length: int | None) -> None:
    read(safetensors_bytes(json.dumps(header).encode("utf-8", "surrogatepass"), data, length))


@pytest.mark.timeout(200)
@pytest.mark.parametrize(
    "header",
    [
        b"",
        b"{}",
        b"[]",
        b"{" * 1000,
        b'{"a":' * 100_000,
        b"[" * 1_000_000,
        b'{"a":{"dtype":"F32","shape":[1e309],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}',
        b'{"a":{"dtype":"F32","shape":[1099511627776,0],"data_offsets":[0,0]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}',
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}',
        b'{"__metadata__":{"k":1}}',
        b'{"__metadata__":{"k":"' + b"v" * 5_000_000 + b'"}}',
        b'{"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}' + b" " * 7_000_000,
        b'{"\xff":{"dtype":"F32","shape":[],"data_offsets":[0,4]}}',
    ],
    ids=lambda header: repr(header[:40]),
)
def test_known_attacks(header: bytes) -> None:
    read(safetensors_bytes(header, bytes(4)))
    read(safetensors_bytes(header))
