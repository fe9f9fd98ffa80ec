"""FFL in your own training loop: only the networks, the losses and one optimizer step.

It uses nothing of codistill's trainer, data or configuration. Run it: python examples/own_loop.py
"""

import torch
from torch.utils.data import DataLoader, TensorDataset

from codistill import Batch, Peers, build_network, load_student, minimize, save_student
from codistill.methods import FFL


def main() -> None:
    torch.manual_seed(0)
    # Your data goes here. In this example the brightness of an image shows its class.
    labels = torch.randint(4, (512,))
    images = torch.randn(512, 3, 32, 32) + labels.view(-1, 1, 1, 1)
    loader = DataLoader(TensorDataset(images, labels), batch_size=64, shuffle=True)

    method = FFL(Peers([build_network("resnet8", num_classes=4) for _ in range(2)], shared=2))
    optimizer = torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9)

    for epoch in range(2):
        for x, y in loader:
            out = method([x])  # logits and feature maps of the peers, and the fused classifier
            losses = method.losses(out, y, epoch)  # {"ce": ..., "ekd": ..., "fkd": ...}
            minimize(losses, optimizer)  # or: sum(losses.values()).backward(), and so on
        print(f"epoch {epoch}: " + ", ".join(f"{k} {v.item():.3f}" for k, v in losses.items()))

    # `training_step` works for every method, also for those that alternate several optimizers.
    optimizers = method.optimizers(lambda params: torch.optim.SGD(params, lr=0.01))
    method.training_step(Batch([x], y), optimizers, epoch=2)

    student = method.peers.student(0).eval()  # an ordinary network, with weights of its own
    save_student("student.safetensors", student, {"network": "resnet8", "classes": list("abcd")})
    again = load_student("student.safetensors")
    assert torch.equal(again(images[:8]), student(images[:8]))
    print(f"student.safetensors: {again.about}")


if __name__ == "__main__":
    main()
