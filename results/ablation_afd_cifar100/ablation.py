"""What AFD's discriminators and the weight decay beside them do, on images that were held out.

    python results/ablation_afd_cifar100/ablation.py ../shared/data/cifar100 [SEED ...]

trains five settings for each seed and writes a line for each run to ablation.jsonl, beside this
file. Two ResNet-8 apart, 4,000 training images of CIFAR-100, 8 epochs; 5,000 other training images
are held out and only evaluated on, after the last epoch. The test set is not read.
"""

import functools
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from codistill import Peers, build_network, evaluate, fit
from codistill.data.batches.in_memory import Augmentation, EvalBatches, TrainBatches
from codistill.data.by_name import load_dataset
from codistill.data.dataset import hold_out
from codistill.data.normalisation import Normalisation
from codistill.methods import AFD
from codistill.methods.optimizers import sgd

EPOCHS, IMAGES, BATCH = 8, 4000, 64
NORMALISATION = Normalisation((129.3, 124.1, 112.4), (68.2, 65.4, 70.4))
SGD = functools.partial(sgd, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)


class DecayAlone(AFD):
    """AFD whose peers feel the weight decay of the adversarial step, but not its gradient."""

    def optimizers(self, make):
        found = super().optimizers(make)
        found["extractors"].register_step_pre_hook(_without_gradient)
        return found


def _without_gradient(optimizer, *_):
    for group in optimizer.param_groups:
        for p in group["params"]:
            p.grad.zero_()


ADVERSARIAL = {
    "adversarial_lr": 2e-5 * 300 / EPOCHS,
    "adversarial_milestones": [round(EPOCHS * m / 300) for m in (75, 150)],
}
SETTINGS: dict[str, tuple[type[AFD], dict[str, Any]]] = {
    "logits only": (AFD, {"alignment": "none"}),
    "no decay": (AFD, ADVERSARIAL),
    "decoupled 0.1": (AFD, ADVERSARIAL | {"adversarial_weight_decay": 0.1}),
    "coupled 0.1": (
        AFD,
        ADVERSARIAL | {"adversarial_weight_decay": 0.1, "decoupled_decay": False},
    ),
    "coupled 0.1, adversarial gradient zeroed": (
        DecayAlone,
        ADVERSARIAL | {"adversarial_weight_decay": 0.1, "decoupled_decay": False},
    ),
}


def main(root: str, *seeds: str) -> None:
    torch.set_num_threads(1)
    train, held_out = hold_out(load_dataset("cifar100", root).train, 0.1, seed=0)
    _, train = hold_out(train, IMAGES / len(train), seed=0)
    held_out = EvalBatches(held_out, 128, NORMALISATION)
    for seed in map(int, seeds or ("0", "1", "2")):
        for name in SETTINGS:
            batches = TrainBatches(
                train, BATCH, NORMALISATION, Augmentation(4, flip=True), seed=seed
            )
            line = {"setting": name, "seed": seed, **trained(name, seed, batches, held_out)}
            with Path(__file__).with_name("ablation.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")


def trained(name: str, seed: int, train: TrainBatches, held_out: EvalBatches) -> dict[str, Any]:
    """One run: accuracies on held-out images, and the records of all epochs."""
    begin = time.process_time()
    torch.manual_seed(seed)
    build, options = SETTINGS[name]
    method = build(Peers([build_network("resnet8", 100) for _ in range(2)]), **options)
    method.to(memory_format=torch.channels_last)
    history = fit(
        method,
        train,
        epochs=EPOCHS,
        make_optimizer=SGD,
        lr_at=lambda epoch: 0.1 ** ((epoch >= EPOCHS / 2) + (epoch >= 3 * EPOCHS / 4)),
        precision="bf16",
    )
    weights = [p.detach().abs().mean() for n, p in method.peers.named_parameters() if p.ndim == 4]
    return {
        "images": train.images,
        "held_out": evaluate(method, held_out),
        "mean_weight": torch.stack(weights).mean().item(),
        "cpu_seconds": time.process_time() - begin,
        "history": history,
    }


if __name__ == "__main__":
    main(*sys.argv[1:])
