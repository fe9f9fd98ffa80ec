"""Measures runs for the page, setting by setting, with a bar in the terminal."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from statistics import mean
from typing import TypeVar

from rich.console import Console

from codistill.analysis import Analysis, Missing, analyse
from codistill.analysis.cost.latency import latency
from codistill.analysis.cost.training_flops import images_seen, training_flops
from codistill.errors import InputError
from codistill.messages import note
from codistill.reporting.page.setting import Setting, settings_of
from codistill.runs.finished import Result
from codistill.runs.progress import live_bars
from codistill.runs.run import STUDENT, Run
from codistill.runs.student import load_student
from codistill.training.device import require_device

_IMAGES = 4
_T = TypeVar("_T")


@dataclass(frozen=True)
class MeasureOptions:
    """How runs are measured.

    Attributes:
        images: test images to show, by place; none: some on which classifiers disagree.
        device: device to compute on. Default: each run's.
        root: folder or file that now holds the images. Default: each run's.
        workers: processes that read images. Default: each run's.
        trust_code: whether to import code that the runs' folders name.
    """

    images: Sequence[int] = ()
    device: str | None = None
    root: str | None = None
    workers: int | None = None
    trust_code: bool = False

    def __post_init__(self) -> None:
        """Raises InputError if the device cannot be used."""
        if self.device is not None:
            require_device(self.device)


@dataclass(frozen=True)
class Measured:
    """What was measured of each setting's runs, in the order of their seeds.

    Attributes:
        of: the analyses of each setting.
        refused: reasons why runs could not be measured at all, by setting.
        outside: one line for each image that was asked for and that a setting does not have.
        latencies: seconds that the student of a setting takes for one image, where its file is.
        training: FLOPs of a setting's training, the mean over its seeds, or why they could not be
            counted.
    """

    of: dict[Setting, list[Analysis]]
    refused: dict[Setting, list[str]] = field(default_factory=dict)
    outside: list[str] = field(default_factory=list)
    latencies: dict[Setting, float] = field(default_factory=dict)
    training: dict[Setting, float | str] = field(default_factory=dict)

    def parts(
        self, part: Callable[[Analysis], _T | Missing]
    ) -> tuple[dict[Setting, list[_T]], list[str]]:
        """A part of the analyses, by setting, and one line for each reason why it is missing."""
        have: dict[Setting, list[_T]] = {}
        reasons: dict[str, list[str]] = {}
        for setting, analyses in self.of.items():
            for reason in self.refused.get(setting, []):
                reasons.setdefault(reason, []).append(setting.title)
            for found in map(part, analyses):
                if isinstance(found, Missing):
                    reasons.setdefault(found.reason, []).append(setting.title)
                else:
                    have.setdefault(setting, []).append(found)
        lines = [f"{'; '.join(dict.fromkeys(of))}: {why}." for why, of in reasons.items()]
        return have, lines


def measure(settings: Sequence[Setting], how: MeasureOptions, console: Console) -> Measured:
    """Analyses all runs on their test images, with the weights of the network that ships.

    Grad-CAM shows images in the first run of each setting: those that were asked for, or else those
    that the first setting with the same test images chose. One note on the console reports each
    part that could not be measured.
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
                        weights=result.scores.kept[1],
                        pictures=places if i == 0 else 0,
                        device=how.device,
                        root=how.root,
                        workers=how.workers,
                        trust_code=how.trust_code,
                    )
                except (InputError, ImportError, OSError) as error:
                    measured.refused.setdefault(s, []).append(str(error))
                else:
                    measured.of[s].append(analysis)
                    if not isinstance(analysis.pictures, Missing):
                        found = [picture.index for picture in analysis.pictures]
                        chosen.setdefault(result.test_images, found)
                progress.advance(task)
    measured.latencies.update(_latencies(settings, how))
    measured.training.update((s, _training(s, how)) for s in settings)
    _tell(measured, console)
    return measured


def _latencies(settings: Sequence[Setting], how: MeasureOptions) -> Iterator[tuple[Setting, float]]:
    """The latency of the first student of each setting; equal networks are measured once."""
    known: dict[object, float] = {}
    for s in settings:
        file = s.results[0].path / STUDENT
        size = s.results[0].manifest.image_size
        try:
            student = load_student(file, how.trust_code)
        except (InputError, ImportError, OSError):
            continue
        what = student.about["network"], len(student.classes), *size
        if what not in known:
            network = student.network.to(how.device or "cpu")
            known[what] = latency(network, (size[0], size[1]))
        yield s, known[what]


def _training(setting: Setting, how: MeasureOptions) -> float | str:
    """The FLOPs of a setting's training, the mean over its seeds, or why they are not counted.

    The first seed whose method can be built is counted, and the others by the images that they saw.
    """
    method, reason = setting.results[0].config.method, ""
    if method["name"] == "codistillation" and method.get("folder"):
        return "a step would leave a network in the folder of the jobs"
    images = {r.path: n for r in setting.results if (n := images_seen(r.history))}
    if not images:
        return "the runs do not record how long they took"
    for result in (r for r in setting.results if r.path in images):
        try:
            device = how.device or "cpu"
            run = Run(result.path, device, how.root, trust_code=how.trust_code)
            flops = training_flops(run, result.history)
        except Exception as error:  # a method of somebody's own may fail in any way
            reason = reason or str(error) or type(error).__name__
        else:
            return flops * mean(images.values()) / images[result.path]
    return reason


def refuse_places(settings: Mapping[str, Sequence[Result]], how: MeasureOptions) -> None:
    """Raises InputError if an image was asked for that no setting has."""
    most = max(s.test_images for s in settings_of(settings))
    for i in how.images:
        if i >= most:
            raise InputError(f"--images: there is no test image {i}: there are {most:,}, from 0")


def _inside(setting: Setting, how: MeasureOptions) -> list[int]:
    """The images asked for that a setting has; all of them if it has none."""
    return [i for i in how.images if i < setting.test_images] or list(how.images)


def _outside(settings: Sequence[Setting], how: MeasureOptions) -> Iterator[str]:
    for s in settings:
        n = s.test_images
        for i in how.images:
            if i >= n > min(how.images):  # a setting that has none of them says so by itself
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
