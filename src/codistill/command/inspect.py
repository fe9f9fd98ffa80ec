"""`codistill inspect`: what `train` would build, as tables."""

import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from codistill.command.options import TRUST_CODE
from codistill.reporting.text import text_table, wrapped
from codistill.settings.arguments import parse_config
from codistill.settings.data_word import with_data
from codistill.settings.fitting import fitting_batch_size

if TYPE_CHECKING:
    from codistill.analysis.cost.summary import PeerSummary, Summary


def main(argv: list[str]) -> int:
    """`codistill inspect [DATA] [--config RECIPE] [options]`."""
    argv, said = with_data(argv)
    if said:
        print(f"codistill: {said}", file=sys.stderr)
    config = parse_config(argv, "codistill inspect", {"--trust_code": TRUST_CODE})

    from codistill.analysis.cost.overview import additions
    from codistill.analysis.cost.summary import summarise_method
    from codistill.settings.build_data import describe_data
    from codistill.settings.build_method import (
        build_with_student,
        make_optimizer,
        update_options,
    )

    # Sizes do not depend on published weights, and no batch is larger than those of many images.
    batch_size = config.batch_size or fitting_batch_size(10**9)
    config = dataclasses.replace(config, pretrained=False, batch_size=batch_size)
    num_classes, image_size = describe_data(config.data)
    method, config = build_with_student(config, num_classes, image_size)
    summary = summarise_method(
        method,
        image_size,
        config.batch_size,
        config.precision,
        make_optimizer(config, method),
        update_options(config),
    )
    print(render(summary, config.networks()), render_additions(additions(method.peers)), sep="\n\n")
    return 0


def render(summary: "Summary", networks: Sequence[str] | None = None) -> str:
    """The summary as tables for a terminal of 80 columns or more.

    Args:
        summary: of a method with its peers.
        networks: the name of each peer's network.
    """
    alike: dict[tuple[PeerSummary, str], list[int]] = {}
    for k, peer in enumerate(summary.peers):
        alike.setdefault((peer, networks[k] if networks else ""), []).append(k)
    tables = [
        (f"{name}\n" if name else "") + _network_table(peer, ks)
        for (peer, name), ks in alike.items()
    ]
    return "\n\n".join([*tables, _method_table(summary), _memory_table(summary), _notes(summary)])


def render_additions(additions: Iterable[tuple[str, dict[str, int] | str]]) -> str:
    """What each method adds, as a table."""
    rows, refused = [], []
    for name, counts in additions:
        if isinstance(counts, str):
            refused.append(f"{name}: {counts}")
        else:
            rows.append([name, *(f"{counts[k]:,}" for k in ("method", "adapters", "frozen"))])
    head = ("What methods add to these peers", "parameters", "of them adapters", "not trained")
    note = "The exported student has none of these. Adapters bring maps to one size and width."
    return "\n".join([text_table(head, rows, note), *map(wrapped, refused)])


def _network_table(peer: "PeerSummary", ks: Sequence[int]) -> str:
    names = ", ".join(map(str, ks))
    title = f"Peers {names}: each alone" if len(ks) > 1 else f"Peer {names}: alone"
    rows = [
        (
            stage.name,
            "x".join(map(str, stage.shape)),
            f"{stage.parameters:,}",
            _flops(stage.flops),
            "shared" if stage.shared else "",
        )
        for stage in peer.stages
    ]
    total = ("total", "", _parameters(peer.parameters), _flops(peer.flops), "")
    return text_table((title, "output", "parameters", "FLOPs", ""), [*rows, total])


def _method_table(summary: "Summary") -> str:
    K, shares = len(summary.peers), any(s.shared for peer in summary.peers for s in peer.stages)
    peers = "1 peer" if K == 1 else f"{K} peers"
    peers += ", what they share counted once" if K > 1 and shares else ""
    views = "" if summary.views == 1 else f", {summary.views} views"
    rows = [
        (peers, _parameters(summary.peers_parameters), _flops(summary.peers_flops)),
        *((f"+ {name}", _parameters(n), "") for name, n in summary.modules.items()),
        (f"total{views}", _parameters(summary.parameters), _flops(summary.flops)),
    ]
    return text_table((f"{summary.method}: together", "parameters", "FLOPs"), rows)


def _memory_table(summary: "Summary") -> str:
    memory = summary.memory
    parts = {
        "weights": memory.weights,
        "gradients": memory.gradients,
        "state of the optimizers": memory.optimizers,
        "buffers": memory.buffers,
        "activations saved for backward": memory.activations,
        "total in tensors": memory.tensors,
    }
    head = (f"Memory of a step, {summary.batch_size} images", "estimate")
    return text_table(head, [(part, f"{n / 2**20:,.1f} MiB") for part, n in parts.items()])


def _notes(summary: "Summary") -> str:
    classifiers = ", ".join([*(f"peer{k}" for k in range(len(summary.peers))), *summary.extra])
    height, width = summary.image_size
    lines = [
        f"Classifiers: {classifiers}.",
        f"FLOPs: forward, for one image of {height}x{width}; 2 per multiply-add.",
        f"A step computes the peers {summary.forwards} times." if summary.forwards > 1 else "",
        "Memory: of the tensors, without the data set. A process takes more: PyTorch's kernels, "
        "what the allocator holds unused, and on a GPU about 0.5 GB for its context.",
    ]
    return "\n".join(wrapped(line) for line in lines if line)


def _parameters(n: int) -> str:
    return f"{n:,} ({n / 1e6:.2f} M)" if n >= 100_000 else f"{n:,}"


def _flops(n: int) -> str:
    power = min(4, int(math.log10(n)) // 3) if n else 0
    return (
        f"{n / 1000**power:,.1f} {('', 'k', 'M', 'G', 'T')[power]}FLOPs" if power else f"{n} FLOPs"
    )
