"""The runs of a comparison and what they cost on this machine, timed without training anything."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from codistill.messages import counted

if TYPE_CHECKING:
    from codistill.comparing.comparison import Row


def show_plan(
    rows: "Sequence[Row]",
    seeds: Sequence[int],
    images: int | None,
    remark: str = "",
    published: Mapping[str, str] | None = None,
) -> None:
    """Prints the rows and the estimated cost of each on this machine.

    Args:
        rows: settings; each is trained with every seed.
        seeds: the seeds.
        images: number of images to train on; None if it is not known.
        remark: stands behind the number of runs.
        published: published figures by a row's label; None: no column for them.
    """
    import torch

    from codistill.analysis.cost.step_time import TIMES
    from codistill.reporting.text import text_table, wrapped
    from codistill.training.device import choose_device

    table: list[list[str]] = []
    hours = 0.0
    for row, seconds in zip(rows, _seconds_per_image(rows), strict=True):
        c = row.config
        cost = seconds * (images * c.epochs / 3600 if images else 1000)
        hours += cost * len(seeds)
        figures = [] if published is None else [published.get(row.label, "-")]
        facts = [f"  {c.network}", str(c.peers), str(c.shared), *figures, f"{cost:,.2f}"]
        table += [[row.label], facts]
    unit = "h a run" if images else "s per 1,000"
    head = ["  networks", "peers", "shared", *(["published"] * (published is not None)), unit]
    print(text_table(head, table))
    c = rows[0].config
    device = choose_device(c.device)
    where = (
        f"{device}, {torch.get_num_threads()} thread(s)" if device.type == "cpu" else str(device)
    )
    together = f", together about {hours:,.1f} h one after the other" if images else ""
    of = f"{images:,} images" if images else "your images"
    *others, last = dict.fromkeys(row.config.epochs for row in rows)
    lengths = " or ".join([*map(str, others), counted(last, "epoch")])
    print()
    text = (
        f"{len(rows) * len(seeds)} runs{f', {remark}' if remark else ''}: seeds "
        f"{', '.join(map(str, seeds))}; {lengths} of {of} of {c.data.name}"
        f"{together}. Estimated from the fastest of {TIMES} training steps of each row, timed now "
        f"({where}); without evaluation and reading of images. Nothing was trained."
    )
    print(wrapped(text))


def _seconds_per_image(rows: "Sequence[Row]") -> Iterator[float]:
    """Seconds per image of a training step of each row: the fastest after a first step."""
    from codistill.analysis.cost.step_time import TIMES, seconds_per_image
    from codistill.settings.build_data import describe_data
    from codistill.training.device import use_device

    classes, image_size = describe_data(rows[0].config.data)
    for row in rows:
        device = use_device(row.config.device, row.config.threads)
        yield seconds_per_image(
            replace(row.config, pretrained=False), classes, image_size, device, TIMES
        )
