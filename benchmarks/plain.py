"""The baseline of the benchmarks: FFL as research scripts train it, written plainly.

Images are PIL images, augmented one by one by torchvision in a DataLoader. The network has
PyTorch's own layout. Every branch, every classifier and every loss is a separate call. The peers
have one optimizer and the fusion module another. Losses and accuracies are read from the device in
every step, for the log. The mathematics is that of `codistill.methods.FFL` on ResNets with a trunk
of two stages; `tests/test_benchmarks.py` checks it. The file needs nothing of codistill but its
import of torchvision.

Kim, Hyun, Chung, Kwak: Feature Fusion for Online Mutual Knowledge Distillation. arXiv:1904.09058.
"""

import math
from collections.abc import Callable

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from codistill.importing import optional

optional("torchvision", "the plain baseline")

from PIL import Image  # noqa: E402
from torchvision import transforms  # noqa: E402

MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)


class BasicBlock(nn.Module):
    def __init__(self, inplanes: int, planes: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(inplanes, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inplanes != planes:
            self.downsample = nn.Sequential(
                nn.Conv2d(inplanes, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x: Tensor) -> Tensor:
        residual = x if self.downsample is None else self.downsample(x)
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        out += residual
        return self.relu(out)


def layer(inplanes: int, planes: int, blocks: int, stride: int = 1) -> nn.Sequential:
    rest = [BasicBlock(planes, planes) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inplanes, planes, stride), *rest)


class BranchedResNet(nn.Module):
    """ResNets that share their first two stages. With one branch it is an ordinary ResNet."""

    def __init__(self, depth: int, num_classes: int, branches: int):
        super().__init__()
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU(inplace=True)
        self.layer1 = layer(16, 16, blocks)
        self.layer2 = layer(16, 32, blocks, stride=2)
        self.layer3 = nn.ModuleList(layer(32, 64, blocks, stride=2) for _ in range(branches))
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.ModuleList(nn.Linear(64, num_classes) for _ in range(branches))
        draw_convolutions(self)

    def forward(self, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """Returns the logits and the last feature map of every branch."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        logits, fmaps = [], []
        for layer3, fc in zip(self.layer3, self.fc, strict=True):
            fmap = layer3(x)
            pooled = self.avgpool(fmap)
            logits.append(fc(pooled.view(pooled.size(0), -1)))
            fmaps.append(fmap)
        return logits, fmaps


class ResNet(BranchedResNet):
    """The network alone."""

    def __init__(self, depth: int, num_classes: int):
        super().__init__(depth, num_classes, branches=1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[0][0]


class FusionModule(nn.Module):
    def __init__(self, channels: int, num_classes: int):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.pointwise = nn.Conv2d(channels, 64, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.avgpool = nn.AvgPool2d(8)
        self.fc = nn.Linear(64, num_classes)
        draw_convolutions(self)

    def forward(self, fmaps: list[Tensor]) -> Tensor:
        x = torch.cat(fmaps, dim=1)
        x = F.relu(self.bn1(self.depthwise(x)))
        x = F.relu(self.bn2(self.pointwise(x)))
        x = self.avgpool(x)
        return self.fc(x.view(x.size(0), -1))


def draw_convolutions(module: nn.Module) -> None:
    for m in module.modules():
        if isinstance(m, nn.Conv2d):
            n = m.kernel_size[0] * m.kernel_size[1] * m.out_channels
            m.weight.data.normal_(0, math.sqrt(2.0 / n))


def softmax_kl(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    log_p = F.log_softmax(student / temperature, dim=1)
    q = F.softmax(teacher / temperature, dim=1)
    return temperature**2 * F.kl_div(log_p, q, reduction="batchmean")


def accuracy(output: Tensor, target: Tensor, topk: tuple[int, ...] = (1, 5)) -> list[Tensor]:
    _, pred = output.topk(max(topk), dim=1)
    correct = pred.t().eq(target.view(1, -1).expand_as(pred.t()))
    return [correct[:k].reshape(-1).float().sum(0) * (100.0 / target.size(0)) for k in topk]


class AverageMeter:
    def __init__(self) -> None:
        self.sum = self.count = 0.0

    def update(self, value: float, n: int) -> None:
        self.sum += value * n
        self.count += n


class PlainFFL:
    """Network, fusion module, two optimizers and the training step of a script.

    Args:
        depth: depth of the ResNets: 8, 20, 32, ...
        num_classes: number of classes, C.
        branches: number of branches, K.
        sgd: function that builds an optimizer of parameters.
        temperature: temperature T of both divergences.
        ramp: weight of the distillation in the present epoch.
        device: device to train on.
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        branches: int,
        sgd: Callable[..., torch.optim.Optimizer],
        temperature: float = 3.0,
        ramp: float = 1.0,
        device: str = "cpu",
    ):
        self.device = device
        self.model = BranchedResNet(depth, num_classes, branches).to(device)
        self.fusion = FusionModule(64 * branches, num_classes).to(device)
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = sgd(self.model.parameters())
        self.fusion_optimizer = sgd(self.fusion.parameters(), weight_decay=1e-5)
        self.temperature, self.ramp = temperature, ramp
        self.meters: dict[str, AverageMeter] = {}

    def loss(self, inputs: Tensor, targets: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The training objective, and the logits of every classifier."""
        logits, fmaps = self.model(inputs)
        fused = self.fusion(fmaps)
        ensemble = sum(logits) / len(logits)
        loss = self.criterion(fused, targets)
        for z in logits:
            loss = loss + self.criterion(z, targets)
        loss = loss + self.ramp * softmax_kl(fused, ensemble.detach(), self.temperature)
        for z in logits:
            loss = loss + self.ramp * softmax_kl(z, fused.detach(), self.temperature)
        outputs = {f"branch{k}": z for k, z in enumerate(logits)}
        return loss, outputs | {"ensemble": ensemble, "fused": fused}

    def step(self, inputs: Tensor, targets: Tensor) -> None:
        loss, outputs = self.loss(inputs, targets)
        self.log("loss", loss.item(), len(targets))
        for name, output in outputs.items():
            top1, top5 = accuracy(output.data, targets)
            self.log(f"{name}/top1", top1.item(), len(targets))
            self.log(f"{name}/top5", top5.item(), len(targets))
        self.optimizer.zero_grad()
        self.fusion_optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.fusion_optimizer.step()

    def train_epoch(self, loader: DataLoader) -> None:
        self.model.train()
        self.fusion.train()
        for inputs, targets in loader:
            self.step(inputs.to(self.device), targets.to(self.device))

    def log(self, name: str, value: float, n: int) -> None:
        self.meters.setdefault(name, AverageMeter()).update(value, n)


class PILImages(Dataset):
    """Images (N, H, W, 3) in memory, returned as PIL images, as torchvision's CIFAR does.

    torchvision's `padding_mode` is "reflect" in the recipe of FFL's authors and "constant" (black)
    in most others.
    """

    def __init__(self, images: Tensor, labels: Tensor, padding_mode: str = "reflect"):
        self.data, self.targets = images.numpy(), labels.tolist()
        self.transform = transforms.Compose(
            [
                transforms.RandomCrop(images.shape[1], padding=4, padding_mode=padding_mode),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(Image.fromarray(self.data[index])), self.targets[index]


def pil_batches(
    images: Tensor,
    labels: Tensor,
    batch_size: int,
    workers: int = 0,
    padding_mode: str = "reflect",
) -> DataLoader:
    """A loader of the images in random order, augmented one by one."""
    return DataLoader(
        PILImages(images, labels, padding_mode),
        batch_size,
        shuffle=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )
