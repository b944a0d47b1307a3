"""Pages of mapped files, as the operating system counts them."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from licht.quant.pages import Mappings, keep_freed_memory, mappings, trim

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the hints are Linux's")
SIZE = 16 * 2**20


def file_bytes() -> int:
    """Mapped file pages that this process holds."""
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssFile:"):
            return int(line.split()[1]) * 1024
    raise AssertionError("no RssFile")


def test_pages_are_let_go_and_come_back(tmp_path: Path) -> None:
    exact = torch.arange(SIZE, dtype=torch.int32)
    save_file({"a": exact, "b": torch.ones(3)}, tmp_path / "a.safetensors")
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        tensor, small = file.get_tensor("a"), file.get_tensor("b")
    held = mappings()
    assert held.holds(tensor)
    assert not held.holds(exact)
    before = file_bytes()
    assert torch.equal(tensor, exact)
    touched = file_bytes()
    held.let_go([tensor, small, exact])
    after = file_bytes()
    assert touched - before > 3 * SIZE
    assert touched - after > 3 * SIZE
    held.ask_for([tensor, exact])
    assert torch.equal(tensor, exact)
    assert torch.equal(small, torch.ones(3))
    assert int(exact[-1]) == SIZE - 1, "memory that is no file must never be let go"


def test_what_lies_in_no_file_is_left_alone() -> None:
    tensor = torch.ones(1000)
    Mappings((), ()).let_go([tensor, torch.empty(0), torch.empty(3, device="meta")])
    mappings().let_go([tensor, torch.empty(0), torch.empty(3, device="meta"), tensor.to_mkldnn()])
    assert float(tensor.sum()) == 1000
    assert keep_freed_memory()
    trim()


ALLOCATIONS = """
import torch
from pathlib import Path
from licht.quant.pages import keep_freed_memory, own_pages

def on_the_heap(tensor):
    # the one region that grows and shrinks, not a mapping of its own
    line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith("[heap]"))
    start, _, stop = line.split()[0].partition("-")
    return int(start, 16) <= tensor.data_ptr() < int(stop, 16)

assert keep_freed_memory()
before = torch.empty(2**24)
with own_pages():
    apart = torch.empty(2**24)
after = torch.empty(2**24)
print([on_the_heap(tensor) for tensor in (before, apart, after)])
"""


def test_what_stays_lies_apart_from_what_comes_and_goes() -> None:
    """In a process of its own: where a heap has grown past other mappings, it goes on in mappings itself."""
    done = subprocess.run([sys.executable, "-c", ALLOCATIONS], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[0] == "[True, False, True]"
