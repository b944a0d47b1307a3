"""Every format against an independent reader, or against its published definition written out value by value."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor

from licht.quant.fp8 import Fp8Linear, pack_fp8, unpack_fp8
from licht.quant.gguf_blocks import BLOCK_FORMATS, GgufLinear, unpack_gguf
from licht.quant.int8 import Int8Linear, int8_matmul, pack_int8, unpack_int8
from licht.quant.linear import QuantisedLinear, StackedLayers
from licht.quant.nf4 import Nested, Nf4Linear, block_scales
from licht.quant.nvfp4 import (
    Nvfp4Linear,
    pack_nvfp4,
    swap_nibbles,
    tile_scales,
    tiled_shape,
    unpack_nvfp4,
    untile_scales,
)
from licht.quant.pages import own_pages
from licht.quant.q4 import Q4Linear, pack_q4, unpack_q4
from licht.quant.swap import QUANTISERS, quantise, worth_quantising
from tests.quant.measure import snr

gguf = pytest.importorskip("gguf")
F32 = torch.float32


def weights(rows: int = 48, columns: int = 256, seed: int = 0) -> Tensor:
    """Heavy-tailed, as weights are; one row is zero and one is tiny."""
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(rows, columns, generator=generator) * 0.05
    made *= torch.rand(rows, 1, generator=generator) * 3
    made[3], made[4] = 0, made[4] * 1e-6
    return made


@pytest.mark.parametrize("name", BLOCK_FORMATS)
def test_gguf_blocks_against_the_gguf_package(name: str) -> None:
    """Exact but for the order of float32 products: measured at most 1 unit in the last place of the largest value."""
    form, kind = BLOCK_FORMATS[name], gguf.GGMLQuantizationType[name]
    assert (form.values, form.stored) == gguf.GGML_QUANT_SIZES[kind]
    generator = np.random.default_rng(0)
    raw = generator.integers(0, 256, (7, 5 * form.stored), dtype=np.uint8)
    halves = {"Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,)}.get(name, (0,))
    for block in raw.reshape(-1, form.stored):
        for place in halves:
            block[place : place + 2] = np.frombuffer(np.float16(generator.normal()).tobytes(), np.uint8)
    expected = gguf.quants.dequantize(raw, kind)
    found = unpack_gguf(torch.from_numpy(raw), name, F32)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=float(np.abs(expected).max()) * 2e-7)
    layer = GgufLinear(torch.from_numpy(raw), name, F32)
    assert (layer.out_features, layer.in_features) == (7, 5 * form.values)
    assert torch.equal(layer.rows(2, 4, F32), found[2:4])


@pytest.mark.parametrize("name", ["Q4_0", "Q5_0", "Q8_0"])
def test_what_the_gguf_package_packs(name: str) -> None:
    exact = weights()
    packed = gguf.quants.quantize(exact.numpy(), gguf.GGMLQuantizationType[name])
    found = unpack_gguf(torch.from_numpy(packed), name, F32)
    assert snr(exact, found) > {"Q4_0": 19, "Q5_0": 25, "Q8_0": 43}[name]  # measured 21.3, 27.4, 45.5


def test_q4_numbers_are_those_of_gguf(tmp_path: object) -> None:
    codes, scale = pack_q4(weights())
    blocks = torch.cat([scale.view(torch.uint8).view(48, 8, 2), codes.view(48, 8, 16)], dim=2).flatten(1)
    expected = gguf.quants.dequantize(blocks.numpy(), gguf.GGMLQuantizationType.Q4_0)
    assert np.array_equal(unpack_q4(codes, scale, F32).numpy(), expected)


def test_q4_is_better_than_the_usual_choice_of_scale() -> None:
    exact = weights()
    usual = gguf.quants.quantize(exact.numpy(), gguf.GGMLQuantizationType.Q4_0)
    ours = snr(exact, unpack_q4(*pack_q4(exact), F32))
    assert ours > snr(exact, unpack_gguf(torch.from_numpy(usual), "Q4_0", F32)) + 0.1  # measured +0.2 dB


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [False, True])
def test_nf4_against_bitsandbytes(kind: str, nested: bool) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    exact = weights(48, 320)
    packed, state = functional.quantize_4bit(exact, quant_type=kind, compress_statistics=nested)
    expected = functional.dequantize_4bit(packed, state)
    inner = None
    if nested:
        inner = Nested(state.state2.code, state.state2.absmax, state.state2.blocksize, float(state.offset))
    layer = Nf4Linear(packed, state.code, block_scales(state.absmax, inner), (48, 320), F32)
    torch.testing.assert_close(layer.weight, expected, rtol=0, atol=1e-7)  # measured 0
    torch.testing.assert_close(layer.rows(5, 7, F32), expected[5:7], rtol=0, atol=1e-7)


def test_fp8_as_published() -> None:
    exact = weights()
    codes, scale = pack_fp8(exact)
    for row in (0, 3, 4, 17):
        assert float(scale[row]) == pytest.approx(max(float(exact[row].abs().max()) / 448, 1e-12))
        value = (exact[row] / scale[row]).to(torch.float8_e4m3fn)
        assert torch.equal(codes[row].view(torch.uint8), value.view(torch.uint8))
    assert torch.equal(unpack_fp8(codes, scale, F32)[7], codes[7].float() * scale[7])
    assert torch.equal(unpack_fp8(codes, torch.tensor(0.5), F32), codes.float() / 2)
    assert snr(exact, unpack_fp8(codes, scale, F32)) > 31  # measured 31.6 dB
    assert torch.isfinite(codes.float()).all()


def _nvfp4_value(code: int) -> float:
    """E2M1: one sign bit, two of exponent with bias 1, one of mantissa; exponent 0 is subnormal."""
    exponent, mantissa = code >> 1 & 3, code & 1
    size = mantissa * 0.5 if exponent == 0 else 2.0 ** (exponent - 1) * (1 + mantissa / 2)
    return -size if code & 8 else size


def test_nvfp4_as_published() -> None:
    exact = weights()
    codes, scale, whole = pack_nvfp4(exact)
    assert codes.shape == (48, 128)
    assert scale.dtype is torch.float8_e4m3fn
    assert float(whole) == pytest.approx(float(exact.abs().max()) / (448 * 6))
    found = unpack_nvfp4(codes, scale, whole, F32)
    for row, column in ((0, 0), (0, 1), (9, 30), (9, 31), (47, 255), (3, 7)):
        byte = int(codes[row, column // 2])
        code = byte & 15 if column % 2 == 0 else byte >> 4
        expected = _nvfp4_value(code) * float(scale[row, column // 16]) * float(whole)
        assert float(found[row, column]) == pytest.approx(expected, rel=1e-6, abs=1e-12)
    assert snr(exact, found) > 20  # measured 20.4 dB
    grid = torch.tensor([_nvfp4_value(code) for code in range(16)])
    step = scale.float().repeat_interleave(16, dim=1) * whole
    scaled = (exact / step).clamp(-6, 6)
    nearest = (scaled[..., None] - grid).abs().min(dim=-1).values * step
    # each value goes to the nearest one that there is
    torch.testing.assert_close((found - exact.clamp(-6 * step, 6 * step)).abs(), nearest, rtol=1e-4, atol=1e-7)


def test_nvfp4_scales_in_tiles_as_published() -> None:
    """Tile (i, j) of 128 x 4 is 512 bytes; row r, column c of it lies at byte (r % 32) x 16 + r // 32 x 4 + c."""
    rows, groups = 200, 6
    scale = torch.arange(rows * groups).remainder(120).to(torch.uint8).view(rows, groups).view(torch.float8_e4m3fn)
    tiled = tile_scales(scale)
    assert tuple(tiled.shape) == tiled_shape(rows, groups) == (256, 8)
    flat = tiled.view(torch.uint8).flatten()
    for r, c in ((0, 0), (1, 0), (31, 3), (32, 0), (127, 3), (128, 4), (199, 5), (77, 2)):
        tile = (r // 128) * 2 + c // 4
        place = tile * 512 + (r % 32) * 16 + (r % 128) // 32 * 4 + c % 4
        assert int(flat[place]) == int(scale.view(torch.uint8)[r, c])
    assert torch.equal(untile_scales(tiled, rows, groups).view(torch.uint8), scale.view(torch.uint8))
    assert torch.equal(swap_nibbles(torch.tensor([0x1F], dtype=torch.uint8)), torch.tensor([0xF1], dtype=torch.uint8))


def test_int8_as_defined() -> None:
    exact = weights()
    codes, scale = pack_int8(exact)
    assert int(codes.abs().amax()) == 127
    torch.testing.assert_close(unpack_int8(codes, scale, F32), codes.float() * scale[:, None], rtol=0, atol=0)
    assert snr(exact, unpack_int8(codes, scale, F32)) > 41  # measured 43.1 dB
    x = torch.randn(20, 256, generator=torch.Generator().manual_seed(1))
    x_codes, x_scale = pack_int8(x)
    whole = x_codes.double() @ codes.double().T * x_scale.double()[:, None] * scale.double()
    torch.testing.assert_close(int8_matmul(x, codes, scale).double(), whole, rtol=1e-5, atol=1e-6)


def _nf4(weight: Tensor, dtype: torch.dtype) -> QuantisedLinear:
    table = torch.linspace(-1, 1, 16)
    blocks = weight.reshape(-1, 64)
    scale = blocks.abs().amax(dim=1).clamp_min(1e-9)
    codes = ((blocks / scale[:, None])[..., None] - table).abs().argmin(dim=-1).to(torch.uint8).flatten()
    return Nf4Linear(codes[::2] << 4 | codes[1::2], table, scale, (weight.shape[0], weight.shape[1]), dtype)


def _gguf(weight: Tensor, dtype: torch.dtype) -> QuantisedLinear:
    packed = gguf.quants.quantize(weight.numpy(), gguf.GGMLQuantizationType.Q8_0)
    return GgufLinear(torch.from_numpy(packed), "Q8_0", dtype)


LAYERS: dict[str, Callable[[Tensor, torch.dtype], QuantisedLinear]] = {**QUANTISERS, "nf4": _nf4, "gguf": _gguf}
BITS = {"fp8": 8.2, "int8": 8.2, "q4": 4.5, "nvfp4": 4.6, "nf4": 4.6, "gguf": 8.5}


@pytest.mark.parametrize("form", LAYERS)
def test_a_layer_multiplies_with_its_weights(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = weights()
    layer = LAYERS[form](exact, F32)
    assert layer.format == form
    assert (layer.out_features, layer.in_features) == (48, 256)
    assert layer.memory_bytes * 8 / exact.numel() <= BITS[form]
    x = torch.randn(2, 5, 256, generator=torch.Generator().manual_seed(2))
    expected = x @ layer.weight.T
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    monkeypatch.setattr("licht.quant.linear.SLICE_ELEMENTS", 256 * 7)
    torch.testing.assert_close(layer(x), expected, rtol=1e-5, atol=1e-5)
    assert layer(x.bfloat16()).dtype is torch.bfloat16
    stacked = StackedLayers([layer, layer])
    assert torch.equal(stacked.weight, torch.cat([layer.weight, layer.weight]))
    torch.testing.assert_close(stacked(x), torch.cat([expected, expected], dim=-1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("form", QUANTISERS)
def test_slices_change_nothing(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = quantise(weights(), form, F32)
    monkeypatch.setattr("licht.quant.swap.SLICE_ELEMENTS", 256 * 5)
    for name, tensor in quantise(weights(), form, F32).named_buffers():
        assert torch.equal(tensor.float(), whole.get_buffer(name).float()), name


@pytest.mark.parametrize("form", QUANTISERS)
def test_zeros_stay_zeros_and_outliers_stay_finite(form: str) -> None:
    exact = torch.zeros(32, 64)
    exact[1, 5], exact[2] = 1e4, 1e-12
    found = quantise(exact, form, F32).weight
    assert torch.isfinite(found).all()
    assert float(found[0].abs().max()) == 0
    assert float(found[1, 5]) == pytest.approx(1e4, rel=0.02)


def test_columns_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of 32"):
        pack_q4(torch.zeros(2, 40))
    with pytest.raises(ValueError, match="no multiple of 16"):
        pack_nvfp4(torch.zeros(2, 40))


def test_which_layers_are_quantised() -> None:
    assert worth_quantising("double_blocks.0.img_attn.qkv", (96, 32))
    assert worth_quantising("layers.11.mlp.down_proj", (64, 96))
    assert not worth_quantising("double_blocks.0.img_attn.qkv", (96, 33))
    assert not worth_quantising("img_in", (96, 32))
    assert not worth_quantising("final_layer.linear", (96, 32))
    assert not worth_quantising("single_blocks.0.norm.query_norm", (32,))
    assert Int8Linear.format != Fp8Linear.format != Q4Linear.format != Nvfp4Linear.format


def test_a_matrix_is_rearranged_once_into_pages_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    entered: list[bool] = []

    @contextmanager
    def noted() -> Iterator[None]:
        entered.append(True)
        with own_pages():
            yield

    monkeypatch.setattr("licht.quant.int8.own_pages", noted)
    layer = Int8Linear(*pack_int8(torch.randn(64, 128)), torch.float32)
    if not layer.fast:
        pytest.skip("this processor multiplies no integers")
    x = torch.randn(32, 128)
    first = layer(x)
    assert torch.equal(layer(x), first)
    assert len(entered) == 1  # what is rearranged stays so
