"""The plans of every official model on common amounts of memory, as a page: `python -m licht.plan.document`."""

from dataclasses import replace
from typing import Final

from licht.core.sizes import Size
from licht.model.variants import VARIANTS, Variant
from licht.plan.plan import GPU, choose
from licht.plan.table import gib
from licht.plan.work import Request

MEMORY_GB: Final = (8, 12, 16, 24, 48, 80, 141)
FORMATS: Final = ("none", "fp8", "q4")
SIZE: Final = Size(1024, 1024)


def document() -> str:
    """The page."""
    parts = [
        "# Plans",
        "What fits where: one picture of 1024x1024 in bfloat16 arithmetic, without references, by the arithmetic of",
        "`licht.plan` (no measurement of a GPU stands behind it; the memory of activations is checked against counted",
        "tensors in `tests/plan`). A cell says what stays on the device and the largest peak of any stage:",
        "",
        "- **resident**: every part, from the first stage to the last",
        "- **in turn**: the part that a stage needs; with *bands*, the autoencoder works on bands of rows",
        "- **streamed**: two blocks of transformer and text tower at a time; the others wait in memory or on disk",
        "",
        "`licht plan MODEL --size 1536x1024 --images 3 --lora FILE --memory 12GiB` gives the stages of any other request,",
        "and other ways that fit; it exits with 3 where none does. This page is written by `python -m licht.plan.document`.",
    ]
    for form in FORMATS:
        parts += ["", f"## {'bfloat16' if form == 'none' else form}", "", *_table(form)]
    return "\n".join(parts) + "\n"


def _table(form: str) -> list[str]:
    head = "| model | " + " | ".join(f"{memory} GB" for memory in MEMORY_GB) + " |"
    rows = [
        f"| {name} | " + " | ".join(_cell(variant, form, m) for m in MEMORY_GB) + " |"
        for name, variant in VARIANTS.items()
    ]
    return [head, "| --- |" + " --- |" * len(MEMORY_GB), *rows]


def _cell(variant: Variant, form: str, memory_gb: int) -> str:
    plan = choose(variant, Request(SIZE), replace(GPU, memory_bytes=memory_gb * 10**9), form, "bfloat16")
    if not plan.fits:
        return "does not fit"
    bands = ", bands" if plan.setup.banded else ""
    return f"{plan.setup.residency}{bands} ({gib(plan.peak_bytes)})"


if __name__ == "__main__":
    import sys

    sys.stdout.write(document())
