"""Records written for TensorBoard, where it is installed."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

from codistill.train import Record


@contextlib.contextmanager
def tensorboard(folder: Path, epoch: int) -> Iterator[Callable[[Record], None]]:
    """What writes a record to TensorBoard, or nothing where it is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        yield lambda record: None
        return
    with SummaryWriter(str(folder), purge_step=epoch + 1) as writer:

        def write(record: Record) -> None:
            for key, value in record.items():
                writer.add_scalar(key, value, int(record["epoch"]))
            writer.flush()

        yield write
