"""FFL in Hugging Face's Trainer, which saves, logs and evaluates as it does its own models.

Run it: python examples/with_trainer.py
"""

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import EvalPrediction, Trainer, TrainerCallback, TrainingArguments

from codistill import FFL, Method, Peers, build_network, objective


class Digits(Dataset):
    """Samples as the Trainer wants them: dictionaries."""

    def __init__(self, part: slice):
        digits = load_digits()
        images = torch.tensor(digits.images[part], dtype=torch.float32).sub(5).div(6)[:, None]
        self.images = images.repeat(1, 3, 1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)
        self.labels = torch.tensor(digits.target[part])

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> dict[str, Tensor]:
        return {"images": self.images[i], "labels": self.labels[i]}


class ForTrainer(nn.Module):
    """A method with one optimizer as the Trainer sees a model: a loss, and logits (B, C)."""

    def __init__(self, method: Method):
        super().__init__()
        self.method = method
        self.epoch = 0

    def forward(self, images: Tensor, labels: Tensor) -> dict[str, Tensor]:
        out = self.method([images])
        losses = self.method.losses(out, labels, self.epoch)
        return {"loss": objective(losses), "logits": out.classifiers["peer0"]}


class Epochs(TrainerCallback):
    """Tells the method what epoch it is: ramp-ups follow it."""

    def on_epoch_begin(self, args, state, control, model, **_) -> None:
        model.epoch = int(state.epoch)
        model.method.begin_epoch(model.epoch, None)


def accuracy(predicted: EvalPrediction) -> dict[str, float]:
    return {"accuracy": float((predicted.predictions.argmax(1) == predicted.label_ids).mean())}


def main() -> None:
    torch.manual_seed(0)
    method = FFL(Peers([build_network("resnet8", num_classes=10) for _ in range(2)], shared=2))
    trainer = Trainer(
        ForTrainer(method),
        TrainingArguments(
            "trainer",
            num_train_epochs=3,
            per_device_train_batch_size=32,
            gradient_accumulation_steps=2,
            learning_rate=0.01,
            eval_strategy="epoch",
            report_to="none",
            dataloader_pin_memory=torch.cuda.is_available(),
        ),
        train_dataset=Digits(slice(1440)),
        eval_dataset=Digits(slice(1440, None)),
        compute_metrics=accuracy,
        callbacks=[Epochs()],
    )
    trainer.train()
    found = trainer.evaluate()
    print(f"accuracy of the student: {found['eval_accuracy']:.2f}")
    assert found["eval_accuracy"] > 0.5


if __name__ == "__main__":
    main()
