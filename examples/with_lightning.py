"""FFL and AFD in Lightning: automatic optimization with one optimizer, manual with several.

Run it: python examples/with_lightning.py
"""

import lightning as L
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from codistill import AFD, FFL, Batch, Method, Peers, Updates, build_network, objective


def sgd(weights) -> torch.optim.Optimizer:
    return torch.optim.SGD(weights, lr=0.05, momentum=0.9)


class Shared(L.LightningModule):
    """What both have: a method, and the accuracy of each of its classifiers."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method

    def validation_step(self, batch: list[Tensor], _: int) -> None:
        images, labels = batch
        for name, logits in self.method([images]).classifiers.items():
            self.log(f"accuracy/{name}", (logits.argmax(1) == labels).float().mean())


class Automatic(Shared):
    """A method with one optimizer. Precision, clipping and accumulation are the Trainer's."""

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        images, labels = batch
        losses = self.method.losses(self.method([images]), labels, self.current_epoch)
        self.log_dict(losses)
        return objective(losses)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.method.optimizers(sgd)["main"]


class Manual(Shared):
    """A method with several optimizers: they step after every second batch, clipped."""

    def __init__(self, method: Method):
        super().__init__(method)
        self.automatic_optimization = False
        self.updates = Updates(backward=self.manual_backward)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        self.named = self.method.optimizers(sgd)
        return [*self.named.values()]

    def on_train_epoch_start(self) -> None:
        self.method.begin_epoch(self.current_epoch, None)

    def training_step(self, batch: list[Tensor], i: int) -> None:
        images, labels = batch
        optimizers = dict(zip(self.named, self.optimizers(), strict=True))
        last = i % 2 == 1 or self.trainer.is_last_batch
        with self.updates.active(share=1 / 2, last=last):
            step = self.method.training_step(
                Batch([images], labels), optimizers, self.current_epoch
            )
        self.log_dict(step)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        self.clip_gradients(optimizer, gradient_clip_val=1.0)  # of fp16 too: they are unscaled


def main() -> None:
    L.seed_everything(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).sub(5).div(6)[:, None]
    images = images.repeat(1, 3, 1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)  # 16x16
    labels = torch.tensor(digits.target)
    train = DataLoader(TensorDataset(images[:1440], labels[:1440]), batch_size=32, shuffle=True)
    test = DataLoader(TensorDataset(images[1440:], labels[1440:]), batch_size=357)

    def peers(shared: int) -> Peers:
        return Peers([build_network("resnet8", num_classes=10) for _ in range(2)], shared=shared)

    settings = {"max_epochs": 3, "logger": False, "enable_checkpointing": False}
    own = {"accumulate_grad_batches": 2, "gradient_clip_val": 1.0}  # automatic ones only
    for model, more in ((Automatic(FFL(peers(2))), own), (Manual(AFD(peers(0))), {})):
        trainer = L.Trainer(**settings, **more)
        trainer.fit(model, train, test)
        accuracy = trainer.callback_metrics["accuracy/peer0"].item()
        print(f"{type(model).__name__}: {accuracy:.2f}, global_step {trainer.global_step}")
        assert accuracy > 0.5


if __name__ == "__main__":
    main()
