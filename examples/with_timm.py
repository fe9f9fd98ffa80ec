"""FFL in the style of timm's train.py: its optimizer, schedule, Mixup, scaler and average.

Run it: python examples/with_timm.py
"""

import torch
from sklearn.datasets import load_digits
from timm.data import Mixup
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from timm.utils import ModelEmaV3, NativeScaler
from torch.utils.data import DataLoader, TensorDataset

from codistill import FFL, Peers, build_network, objective


def main() -> None:
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).sub(5).div(6)[:, None]
    images = images.repeat(1, 3, 1, 1).repeat_interleave(2, 2).repeat_interleave(2, 3)  # 16x16
    images, labels = images.to(device), torch.tensor(digits.target).to(device)
    train = TensorDataset(images[:1440], labels[:1440])
    loader = DataLoader(train, batch_size=32, shuffle=True)

    epochs = 4
    method = FFL(Peers([build_network("resnet8", num_classes=10) for _ in range(2)], shared=2))
    method.to(device)
    optimizer = create_optimizer_v2(method, opt="adamw", lr=3e-3, weight_decay=0.05)
    scheduler, _ = create_scheduler_v2(optimizer, sched="cosine", num_epochs=epochs)
    mixup = Mixup(mixup_alpha=0.2, label_smoothing=0.1, num_classes=10)  # labels become (B, C)
    scaler = NativeScaler(device=device.type)
    average = ModelEmaV3(method, decay=0.98)

    for epoch in range(epochs):
        method.train()
        method.begin_epoch(epoch, None)
        for i, (x, y) in enumerate(loader):
            x, y = mixup(x, y)
            with torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda"):
                losses = method.losses(method([x]), y, epoch)
            last = i % 2 == 1 or i == len(loader) - 1
            loss = objective(losses) / 2
            scaler(loss, optimizer, 1.0, parameters=method.parameters(), need_update=last)
            if last:
                optimizer.zero_grad()
                average.update(method)
        scheduler.step(epoch + 1)
        print(f"epoch {epoch}: " + ", ".join(f"{k} {v.item():.3f}" for k, v in losses.items()))

    student = average.module.peers.student(0).eval()
    with torch.inference_mode():
        accuracy = (student(images[1440:]).argmax(1) == labels[1440:]).float().mean().item()
    print(f"accuracy of the student: {accuracy:.2f}")
    assert accuracy > 0.5


if __name__ == "__main__":
    main()
