"""Measures runs for the page, setting by setting, with a bar in the terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

from rich.console import Console

from codistill.analysis import Analysis, Missing, analyse
from codistill.errors import InputError
from codistill.messages import note
from codistill.reporting.page.setting import Setting, settings_of
from codistill.runs.finished import Result
from codistill.runs.progress import live_bars
from codistill.training.device import choose_device

_IMAGES = 4


@dataclass(frozen=True)
class MeasureOptions:
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

    def __post_init__(self) -> None:
        """Raises InputError where the device cannot be used."""
        if self.device is not None:
            choose_device(self.device)


@dataclass(frozen=True)
class Measured:
    """What was measured of each setting's runs, in the order of their seeds.

    Attributes:
        of: the analyses of each setting.
        refused: why a run could not be measured at all, by setting.
        outside: images that were asked for, and that a setting has not; one line for each.
    """

    of: dict[Setting, list[Analysis]]
    refused: dict[Setting, list[str]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)

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


def measure(settings: Sequence[Setting], how: MeasureOptions, console: Console) -> Measured:
    """Analyses of all runs, on their test images, with the weights after the last epoch.

    Images are looked at with Grad-CAM in the first run of each setting: those that were asked for,
    else ones that the first setting on the same test images chose. What could not be measured is
    told once, on the console.
    """
    measured = Measured({s: [] for s in settings}, outside=[*_outside(settings, how)])
    chosen: dict[object, Sequence[int] | int] = {}
    with live_bars(console) as progress:
        task = progress.add_task("measuring", total=sum(len(s.results) for s in settings))
        for s in settings:
            for i, result in enumerate(s.results):
                progress.update(task, description=f"measuring {result.path.name}")
                places = _inside(s, how) or chosen.get(result.test_images, _IMAGES)
                try:
                    analysis = analyse(
                        result.path,
                        pictures=places if i == 0 else 0,
                        device=how.device,
                        root=how.root,
                        workers=how.workers,
                    )
                except (InputError, ImportError, OSError) as error:
                    measured.refused.setdefault(s, []).append(str(error))
                else:
                    measured.of[s].append(analysis)
                    if not isinstance(analysis.pictures, Missing):
                        found = [picture.index for picture in analysis.pictures]
                        chosen.setdefault(result.test_images, found)
                progress.advance(task)
    _tell(measured, console)
    return measured


def refuse_places(settings: Mapping[str, Sequence[Result]], how: MeasureOptions) -> None:
    """Raises InputError where an image was asked for that no setting has."""
    counts = [_test_images(s) for s in settings_of(settings)]
    known = [n for n in counts if n is not None]
    nowhere = [i for i in how.images if len(known) == len(counts) and i >= max(known)]
    if nowhere:
        raise InputError(
            f"--images: there is no test image {nowhere[0]}: there are {max(known):,}, from 0"
        )


def _test_images(setting: Setting) -> int | None:
    return setting.results[0].manifest.images.get("test")


def _inside(setting: Setting, how: MeasureOptions) -> list[int]:
    """The images that were asked for, as far as a setting has them; all of them if it has none."""
    n = _test_images(setting)
    return [i for i in how.images if n is None or i < n] or list(how.images)


def _outside(settings: Sequence[Setting], how: MeasureOptions) -> Iterator[str]:
    for s in settings:
        inside = _inside(s, how)
        for i in how.images:
            if i not in inside:
                n = _test_images(s)
                yield f"{s.title}: there is no test image {i}: there are {n:,}, from 0."


def _tell(measured: Measured, console: Console) -> None:
    lines = list(measured.outside)
    of_firsts = Measured({s: of[:1] for s, of in measured.of.items()})
    for which, name in (
        (measured, "predictions"),
        (measured, "changes"),
        (measured, "similarity"),
        (of_firsts, "pictures"),
    ):
        lines += which.parts(attrgetter(name))[1]
    for line in dict.fromkeys(lines):
        note(f"not measured: {line}", console)
