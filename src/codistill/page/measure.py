"""Measures runs for the page, setting by setting, with a bar in the terminal."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from rich.console import Console

from codistill.analysis import Analysis, Missing, analyse
from codistill.display import live_bars
from codistill.errors import InputError
from codistill.page.settings import Setting

_IMAGES = 4


@dataclass(frozen=True)
class How:
    """How runs are to be measured.

    Attributes:
        images: places in the split of those to look at; none: some on which classifiers disagree.
        device: another than the runs were made with.
        root: where the same images are now.
        workers: processes that read images.
    """

    images: Sequence[int] = ()
    device: str | None = None
    root: str | None = None
    workers: int | None = None


@dataclass(frozen=True)
class Measured:
    """What was measured of each setting's runs, in the order of their seeds.

    Attributes:
        of: the analyses of each setting.
        refused: why a run could not be measured at all, by setting.
    """

    of: dict[Setting, list[Analysis]]
    refused: dict[Setting, list[str]] = field(default_factory=dict)

    def parts(
        self, part: Callable[[Analysis], object]
    ) -> tuple[dict[Setting, list[Analysis]], list[str]]:
        """The analyses that have a part, and one line for each reason why others lack it."""
        have: dict[Setting, list[Analysis]] = {}
        reasons: dict[str, list[str]] = {}
        for setting, analyses in self.of.items():
            for reason in self.refused.get(setting, []):
                reasons.setdefault(reason, []).append(setting.title)
            for a in analyses:
                found = part(a)
                if isinstance(found, Missing):
                    reasons.setdefault(found.reason, []).append(setting.title)
                else:
                    have.setdefault(setting, []).append(a)
        lines = [f"{'; '.join(dict.fromkeys(of))}: {why}." for why, of in reasons.items()]
        return have, lines


def measure(settings: Sequence[Setting], how: How, console: Console) -> Measured:
    """Analyses of all runs, on their test images, with the weights after the last epoch.

    Images are looked at with Grad-CAM in the first run of each setting. All show the same ones:
    those that were asked for, else the ones that the first setting chose.
    """
    measured = Measured({s: [] for s in settings})
    pictures: Sequence[int] | int = list(how.images) or _IMAGES
    with live_bars(console) as progress:
        task = progress.add_task("measuring", total=sum(len(s.results) for s in settings))
        for s in settings:
            for i, result in enumerate(s.results):
                progress.update(task, description=f"measuring {result.path.name}")
                try:
                    analysis = analyse(
                        result.path,
                        pictures=pictures if i == 0 else 0,
                        device=how.device,
                        root=how.root,
                        workers=how.workers,
                    )
                except (InputError, ImportError, OSError) as error:
                    measured.refused.setdefault(s, []).append(str(error))
                else:
                    measured.of[s].append(analysis)
                    if not isinstance(analysis.pictures, Missing) and isinstance(pictures, int):
                        pictures = [picture.index for picture in analysis.pictures]
                progress.advance(task)
    return measured
