"""TensorBoard logs, where the package for them is installed."""

from pathlib import Path

from licht.core.errors import NotAvailable
from licht.training.loop import Watch


def open_tensorboard(run: Path) -> Watch:
    """Write everything that is logged to `run`/tensorboard as well. Raises `NotAvailable` without the package."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise NotAvailable("TensorBoard logs need a package: pip install tensorboard") from error
    writer = SummaryWriter(str(run / "tensorboard"), flush_secs=20)

    def watch(step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    return watch
