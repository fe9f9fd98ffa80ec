"""Sums of gradients over processes, which travel while the backward pass goes on."""

from collections.abc import Callable, Sequence
from types import TracebackType

from torch import Tensor
from torch.utils.hooks import RemovableHandle

from codistill import distributed

MESSAGE = 25 << 20  # bytes, as in DistributedDataParallel; gradients below travel in one
_LAST = 1 << 20  # bytes: what no computation hides


class GradientSums:
    """Sums the gradients of weights over the team: a context manager for a backward pass.

    Gradients are grouped into messages, the same in all processes. A message leaves as soon as it
    has all its gradients and the one before has left, so that all processes send in one order. The
    rest leaves in `finish`: the gradients of the first layers, which come last, and what waits for
    a weight without a gradient. Without the context manager, all leave in `finish`.

    Args:
        weights: the weights, in the order of the forward pass.
    """

    def __init__(self, weights: Sequence[Tensor]):
        self._messages = _messages(weights)[::-1]
        self._message_of = {w: i for i, of_one in enumerate(self._messages) for w in of_one}
        self._missing = [set(of_one) for of_one in self._messages]
        self._left = 0
        self._finish: list[Callable[[], None]] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> "GradientSums":
        if len(self._messages) > 1:
            self._hooks = [
                w.register_post_accumulate_grad_hook(self._has_gradient) for w in self._message_of
            ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def finish(self, statistics: Sequence[Tensor] = ()) -> None:
        """Replaces all gradients by their sums, and statistics as well.

        Weights without a gradient have to have none in all processes.
        """
        *rest, last = self._messages[self._left :]
        for of_one in rest:
            self._send(_gradients(of_one))
        self._send([*_gradients(last), *statistics])
        for finish in self._finish:
            finish()

    def _has_gradient(self, weight: Tensor) -> None:
        i = self._message_of[weight]
        if i < self._left:
            raise RuntimeError(
                "a gradient changed after it was sent to other processes: the backward pass comes "
                "to a weight twice, as it does with torch.utils.checkpoint(use_reentrant=True); "
                "give use_reentrant=False"
            )
        self._missing[i].discard(weight)
        while self._left < len(self._messages) - 1 and not self._missing[self._left]:
            self._send(_gradients(self._messages[self._left]))

    def _send(self, tensors: Sequence[Tensor]) -> None:
        self._finish.append(distributed.start_adding_up(tensors))
        self._left += 1


def _gradients(weights: Sequence[Tensor]) -> list[Tensor]:
    return [w.grad for w in weights if w.grad is not None]


def _messages(weights: Sequence[Tensor]) -> list[list[Tensor]]:
    """The weights that learn, in groups: a small one first, then about `MESSAGE` bytes each."""
    learning = [w for w in weights if w.requires_grad]
    limit = MESSAGE if sum(w.nbytes for w in learning) <= MESSAGE else _LAST
    groups: list[list[Tensor]] = [[]]
    size = 0
    for w in learning:
        if size and size + w.nbytes > limit:
            groups.append([])
            size, limit = 0, MESSAGE
        groups[-1].append(w)
        size += w.nbytes
    return groups
