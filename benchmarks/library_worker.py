"""One library's whole training loop of DML, timed in an environment of its own for `libraries.py`.

    LIBRARY is kd-lib or pytorch-dml; the loop is the library's own, the data are PIL images in a
    DataLoader as in `plain.py`, the networks are ordinary ResNets, optimizers SGD.

The loader times an epoch, from the request for the first batch until the batches are used up. What
a library does before and after, such as evaluating, is not counted.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import torch
import torch.nn as nn
from torch.utils.data import DataLoader

from interleave import CLOCKS, serve
from plain import ResNet, pil_batches


class Stopwatch:
    """A loader that times its last pass, including the work on the batches."""

    def __init__(self, loader: DataLoader, now: Callable[[], float] = time.perf_counter):
        self.loader, self.dataset, self.now = loader, loader.dataset, now
        self.seconds = 0.0

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[Any]:
        begin = self.now()
        yield from self.loader
        self.seconds = self.now() - begin


def kd_lib(networks: list[nn.Module], optimizers: list[Any], train: Stopwatch) -> Callable[[], Any]:
    # `import KD_Lib.KD` imports its part for texts first, which needs torchtext.legacy and
    # transformers.AdamW: neither exists any more. DML needs nothing of it.
    text = ModuleType("KD_Lib.KD.text")
    text.BERT2LSTM = text.get_essentials = None  # type: ignore[attr-defined]
    sys.modules["KD_Lib.KD.text"] = text
    from KD_Lib.KD import DML

    class Divergence(nn.Module):  # the default is the squared difference of the logits, not DML
        def forward(self, z: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            log_p, q = (z / 3).log_softmax(dim=1), (other / 3).softmax(dim=1)
            return 9 * nn.functional.kl_div(log_p, q, reduction="batchmean")

    one_image = torch.utils.data.Subset(train.dataset, [0])
    dml = DML(networks, train, DataLoader(one_image), optimizers, loss_fn=Divergence())
    # each call puts the networks back into train mode, in which the library itself forgets to
    return lambda: dml.train_students(epochs=1, plot_losses=False, save_model=False)


def pytorch_dml(
    networks: list[nn.Module], optimizers: list[Any], train: Stopwatch
) -> Callable[[], Any]:
    from pydml import DMLConfig, DMLTrainer

    trainer = DMLTrainer(networks, DMLConfig(temperature=3.0), "cpu", optimizers)
    return lambda: trainer.fit(train, epochs=1)


LIBRARIES = {"kd-lib": kd_lib, "pytorch-dml": pytorch_dml}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("library", choices=LIBRARIES)
    for name in ("depth", "peers", "batch", "steps", "threads"):
        parser.add_argument(f"--{name}", type=int, required=True)
    parser.add_argument("--clock", choices=CLOCKS, required=True)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)

    n = options.steps * options.batch
    images = torch.randint(256, (n, 32, 32, 3), dtype=torch.uint8)
    loader = pil_batches(images, torch.randint(100, (n,)), options.batch)
    train = Stopwatch(loader, CLOCKS[options.clock])
    networks = [ResNet(options.depth, 100) for _ in range(options.peers)]
    optimizers = [
        torch.optim.SGD(x.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4)
        for x in networks
    ]
    epoch = LIBRARIES[options.library](networks, optimizers, train)

    def contender() -> float:
        epoch()
        return train.seconds

    serve(contender)


if __name__ == "__main__":
    main()
