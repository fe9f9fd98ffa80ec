"""The interface of this library: how peers are trained together."""

import abc
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer

from codistill.data.batch import Batch, Labels
from codistill.errors import InputError
from codistill.methods.length import PAPERS, Length, Rule
from codistill.methods.minimize import minimize
from codistill.networks.peers import Kept, Outputs, Peers


class Method(nn.Module, abc.ABC):
    """A way of training peers together.

    A method defines `losses`. If its paper asks for more, it also

    - adds modules in `__init__`: a fusion module, a gate, discriminators;
    - adds classifiers in `forward`;
    - sets `views`, the number of augmented views it needs of each image;
    - returns several `optimizers`, says in `training_step` when each one steps, and in
      `lr_factor` which one has a schedule of its own;
    - does in `begin_epoch` what its paper does once an epoch;
    - says in `students` what is kept, if that is not simply the best peer;
    - warns in `remarks` about options that make little sense in a training of some length;
    - returns measurements beside its loss terms, such as a discriminator's accuracy: scalars whose
      names begin with "measure/". They are logged and never minimised.

    A method never extends another method.

    Args:
        peers: the networks that learn together.

    Attributes:
        views: augmented views of each image that a step needs. The peers take turns with them.
        forwards: the number of times that the peers compute a batch in a step.
        needs_held_out: whether `begin_epoch` needs images that were held out.
        reads_weights: the option by which losses read the weights of peers, and not only their
            outputs, such as "diversity_weight above 0"; empty if they do not.
        paper_length: the training that the defaults of the constructor belong to.
        scales: the rule by which a default changes in a training of another length, by the name of
            the argument: {"ramp_up": share_of_epochs}; see `codistill.methods.length`. A method
            that does not use such a constant, as it is set, may leave it out in `__init__`.
    """

    views = 1
    forwards = 1
    needs_held_out = False
    reads_weights = ""
    paper_length: ClassVar[Length] = PAPERS
    scales: Mapping[str, Rule] = {}

    def __init__(self, peers: Peers):
        super().__init__()
        self.peers = peers

    def forward(self, views: Sequence[Float[Tensor, "B 3 H W"]]) -> Outputs:
        """The outputs of the peers for a batch, and the classifiers that the method adds."""
        return self.peers(views)

    @abc.abstractmethod
    def losses(self, out: Outputs, labels: Labels, epoch: int) -> dict[str, Tensor]:
        """The weighted terms of the training objective, by name. The objective is their sum.

        What is named "measure/..." is no term, but a measurement for the log.
        """

    def optimizers(self, make: Callable[..., Optimizer]) -> dict[str, Optimizer]:
        """The optimizers by name. `make(params)` builds the one that the recipe chose."""
        return {"main": make(self.parameters())}

    def lr_factor(self, optimizer: str, epoch: int, recipe: float) -> float:
        """The factor of an optimizer's learning rate in an epoch. Default: the recipe's."""
        return recipe

    def begin_epoch(self, epoch: int, held_out: Iterable[Batch] | None) -> None:  # noqa: B027
        """Called before the first step of an epoch, counted from 0. Does nothing.

        Whatever it changes belongs into buffers, so that an interrupted training continues exactly.

        Args:
            epoch: the epoch that begins.
            held_out: images that no peer trains on, to measure the peers; never the test set.
        """

    def students(self) -> dict[str, Kept]:
        """The classifiers, by name, of which one is kept in the end.

        The held-out images choose which one; without any, it is the first.
        """
        return {f"peer{k}": Kept(self.peers, k) for k in range(len(self.peers))}

    def remarks(self, epochs: int) -> Iterator[str]:
        """Warnings about options that are allowed but make little sense in so long a training.

        Args:
            epochs: the number of epochs of the training.
        """
        yield from ()

    def training_step(
        self, batch: Batch, optimizers: dict[str, Optimizer], epoch: int
    ) -> dict[str, Tensor]:
        """Updates the weights once and returns the loss terms and measurements, for the log."""
        losses = self.losses(self(batch.views), batch.labels, epoch)
        minimize(losses, optimizers["main"])
        return losses


def require_peers(peers: Peers, why: str, least: int = 2) -> None:
    """Raises InputError if there are fewer than `least` peers; `why` says what they are for."""
    if len(peers) < least:
        raise InputError(f"{why}: it needs at least {least} peers, not {len(peers)}")
