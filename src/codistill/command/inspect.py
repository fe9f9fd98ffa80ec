"""`codistill inspect`: what `train` would build, as tables."""

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from codistill.settings.arguments import parse_config

if TYPE_CHECKING:
    from codistill.analysis.cost.summary import PeerSummary, Summary


def main(argv: list[str]) -> int:
    """`codistill inspect [--config RECIPE] [options]`."""
    config = parse_config(argv, "codistill inspect")

    from codistill.analysis.cost.overview import additions
    from codistill.analysis.cost.summary import summarise_method
    from codistill.settings.build_data import describe_data
    from codistill.settings.build_method import build_method

    num_classes, image_size = describe_data(config.data)
    method = build_method(config, num_classes, image_size)
    summary = summarise_method(method, image_size, config.batch_size, config.precision)
    console = Console()
    console.print(render(summary, config.networks()))
    console.print("", render_additions(additions(method.peers)), sep="\n")
    return 0


def render(summary: "Summary", networks: Sequence[str] | None = None) -> RenderableType:
    """The summary as tables for a terminal of 80 columns or more.

    Args:
        summary: of a method with its peers.
        networks: the name of each peer's network.
    """
    alike: dict[tuple[PeerSummary, str], list[int]] = {}
    for k, peer in enumerate(summary.peers):
        alike.setdefault((peer, networks[k] if networks else ""), []).append(k)
    tables: list[RenderableType] = []
    for (peer, name), ks in alike.items():
        tables.append(Group(*[Text(name)] * bool(name), _network_table(peer, ks)))
    tables += [_method_table(summary), _memory_table(summary)]
    return Group(*(part for table in tables for part in (table, "")), _notes(summary))


def render_additions(additions: Iterable[tuple[str, dict[str, int] | str]]) -> RenderableType:
    """What each method adds, as a table."""
    title = "What methods add to these peers"
    table = Table(title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in ("parameters", "of them adapters", "not trained"):
        table.add_column(column, justify="right", no_wrap=True)
    refused = []
    for name, counts in additions:
        if isinstance(counts, str):
            refused.append(f"{name}: {counts}")
        else:
            table.add_row(name, *(f"{counts[k]:,}" for k in ("method", "adapters", "frozen")))
    note = "No part of the exported student. Adapters bring maps to one size and width."
    return Group(table, "", Text("\n".join([note, *refused])))


def _network_table(peer: "PeerSummary", ks: Sequence[int]) -> Table:
    names = ", ".join(map(str, ks))
    title = f"Peers {names}: each alone" if len(ks) > 1 else f"Peer {names}: alone"
    table = _table(title, "output", "parameters", "FLOPs", "")
    for s in peer.stages:
        shape = "x".join(map(str, s.shape))
        shared = "shared" if s.shared else ""
        table.add_row(s.name, shape, f"{s.parameters:,}", _flops(s.flops), shared)
    table.add_section()
    table.add_row("total", "", _parameters(peer.parameters), _flops(peer.flops), "")
    return table


def _method_table(summary: "Summary") -> Table:
    table = _table(f"{summary.method}: together", "parameters", "FLOPs")
    K, shares = len(summary.peers), any(s.shared for peer in summary.peers for s in peer.stages)
    peers = "1 peer" if K == 1 else f"{K} peers"
    peers += ", what they share counted once" if K > 1 and shares else ""
    table.add_row(peers, _parameters(summary.peers_parameters), _flops(summary.peers_flops))
    for name, parameters in summary.modules.items():
        table.add_row(f"+ {name}", _parameters(parameters), "")
    table.add_section()
    views = "" if summary.views == 1 else f", {summary.views} views"
    total = _parameters(summary.parameters), _flops(summary.flops)
    table.add_row(f"total{views}", *total)
    return table


def _memory_table(summary: "Summary") -> Table:
    memory = summary.memory
    table = _table(f"Memory of a step, {summary.batch_size} images", "estimate")
    table.add_row("weights", _mebibytes(memory.weights))
    table.add_row("gradients", _mebibytes(memory.gradients))
    table.add_row("state of the optimizers", _mebibytes(memory.optimizers))
    table.add_row("buffers", _mebibytes(memory.buffers))
    table.add_row("activations saved for backward", _mebibytes(memory.activations))
    table.add_section()
    table.add_row("total in tensors", _mebibytes(memory.tensors))
    return table


def _notes(summary: "Summary") -> Text:
    classifiers = [*(f"peer{k}" for k in range(len(summary.peers))), *summary.extra]
    height, width = summary.image_size
    again = f"A step computes the peers {summary.forwards} times.\n" if summary.forwards > 1 else ""
    return Text(
        f"Classifiers: {', '.join(classifiers)}.\n"
        f"FLOPs: forward, for one image of {height}x{width}; 2 per multiply-add.\n"
        f"{again}"
        "Memory: of the tensors, without the data set. A process takes more: PyTorch's kernels, "
        "and what the allocator holds unused."
    )


def _table(title: str, *columns: str) -> Table:
    """A table whose first column says what each row is; the others hold numbers."""
    table = Table(title, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _parameters(n: int) -> str:
    return f"{n:,} ({n / 1e6:.2f} M)" if n >= 100_000 else f"{n:,}"


def _flops(n: int) -> str:
    power = min(4, int(math.log10(n)) // 3) if n else 0
    return (
        f"{n / 1000**power:,.1f} {('', 'k', 'M', 'G', 'T')[power]}FLOPs" if power else f"{n} FLOPs"
    )


def _mebibytes(n: int) -> str:
    return f"{n / 2**20:,.1f} MiB"
