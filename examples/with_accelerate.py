"""AFD in a loop of Accelerate: three optimizers, batches in two parts, clipped gradients.

Run it: python examples/with_accelerate.py, or accelerate launch --num_processes 1 ...
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.utils.data import DataLoader, TensorDataset

from codistill import AFD, Batch, Peers, Updates, build_network


def main() -> None:
    torch.manual_seed(0)
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).sub(5).div(6)[:, None]
    images = images.repeat(1, 3, 1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)  # 16x16
    labels = torch.tensor(digits.target)
    loader = DataLoader(TensorDataset(images[:960], labels[:960]), batch_size=32, shuffle=True)

    accelerator = Accelerator(gradient_accumulation_steps=2)  # mixed_precision="fp16" on a GPU
    method = AFD(Peers([build_network("resnet8", num_classes=10) for _ in range(2)]))
    optimizers = method.optimizers(lambda w: torch.optim.SGD(w, lr=0.05, momentum=0.9))
    method, loader = accelerator.prepare(method, loader)
    optimizers = {name: accelerator.prepare(o) for name, o in optimizers.items()}

    def step(optimizer: torch.optim.Optimizer) -> None:
        weights = [w for group in optimizer.param_groups for w in group["params"]]
        accelerator.clip_grad_norm_(weights, 1.0)  # it unscales those of fp16 first
        optimizer.step()

    updates = Updates(backward=accelerator.backward, step=step)  # one for the whole training
    for epoch in range(3):
        method.begin_epoch(epoch, None)
        for x, y in loader:
            with (
                accelerator.accumulate(method),
                accelerator.autocast(),
                updates.active(last=accelerator.sync_gradients),
            ):
                losses = method.training_step(Batch([x], y), optimizers, epoch)
        print(f"epoch {epoch}: " + ", ".join(f"{k} {v.item():.3f}" for k, v in losses.items()))

    student = accelerator.unwrap_model(method).peers.student(0).eval()
    with torch.inference_mode():
        test = images[1440:].to(accelerator.device), labels[1440:].to(accelerator.device)
        accuracy = (student(test[0]).argmax(1) == test[1]).float().mean().item()
    print(f"accuracy of the student: {accuracy:.2f}")
    assert accuracy > 0.5


if __name__ == "__main__":
    main()
