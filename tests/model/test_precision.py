import pytest
import torch

from licht.model.precision import multiplies_bfloat16


@pytest.mark.parametrize(
    ("units", "fast"),
    [
        ({"avx2": True, "avx512_f": True, "amx_bf16": False, "avx512_bf16": False}, False),
        ({"avx512_bf16": True}, True),
        ({"amx_bf16": True, "avx512_bf16": False}, True),
        ({"neon": True, "bf16": True}, True),
        ({"neon": True}, False),
    ],
)
def test_processors_say_it_and_other_devices_do(
    units: dict[str, bool], fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: units)
    assert multiplies_bfloat16(torch.device("cpu")) is fast
    assert multiplies_bfloat16(torch.device("cuda"))
