"""The settings that a page compares, each with a number and a way to be drawn."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from statistics import mean

from codistill.reporting.page.drawing import Style, sample
from codistill.reporting.page.parts import Fold, Key, Part
from codistill.runs.finished import Result
from codistill.training.record import Record


@dataclass(frozen=True, eq=False)
class Setting:
    """The runs of one row of the tables.

    Attributes:
        number: number from 1, the same all over the page.
        label: label of the row.
        results: the runs, in the order of their seeds.
    """

    number: int
    label: str
    results: Sequence[Result]

    @property
    def title(self) -> str:
        return f"{self.number}. {self.label}"

    @property
    def head(self) -> str:
        """The first cell of a table's row: the number, which the page shows in the colour."""
        return str(self.number)

    @property
    def n(self) -> str:
        """The number of seeds, and the seeds."""
        seeds = ", ".join(str(r.config.seed) for r in self.results)
        return f"n = {len(self.results)} (seed{'s' if len(self.results) > 1 else ''} {seeds})"

    @property
    def style(self) -> Style:
        return Style.number(self.number - 1)

    @property
    def peers(self) -> list[str]:
        return self.results[0].scores.peers

    def called(self, classifier: str) -> str:
        """A classifier's name, with that of its network where the peers' networks differ."""
        networks = self.results[0].config.networks()
        if classifier not in self.peers or len(set(networks)) == 1:
            return classifier
        return f"{classifier} {networks[int(classifier[4:])].rpartition('/')[2]}"

    @property
    def test_images(self) -> int:
        """The number of images that it is tested on."""
        return self.results[0].manifest.images["test"]

    @property
    def own(self) -> list[str]:
        """The classifiers that the method adds."""
        known = (*self.peers, "ensemble")
        return [name for name in self.results[0].scores.last if name not in known]

    @property
    def given(self) -> set[str]:
        """The classifiers that the method was given, such as KD's teacher."""
        return {
            n
            for r in self.results
            for n in self.own
            if n in r.manifest.networks or isinstance(r.config.method.get(n), str)
        }

    @property
    def own_classifier(self) -> str | None:
        """The method's own classifier: no peer, nothing that may be kept, nothing it was given."""
        r = self.results[0]
        known = {*r.manifest.students, *r.manifest.parameters, *r.config.method}
        return r.scores.own_classifier(known)

    def keys(self, prefix: str) -> list[str]:
        """The keys of the records that begin with a prefix, in their order."""
        found = [k for r in self.results for record in r.history for k in record]
        return [k for k in dict.fromkeys(found) if k.startswith(prefix)]

    def columns(self, value: Callable[[Record], float | None]) -> list[list[float]]:
        """For each epoch, the values that `value` finds in the records of the seeds."""
        epochs = zip_longest(*(r.history for r in self.results))
        found = ([value(record) for record in records if record] for records in epochs)
        return [[x for x in values if x is not None] for values in found]

    def curve(self, key: str) -> list[list[float]]:
        """For each epoch, the values of the seeds."""
        return self.columns(lambda record: record.get(key))

    def mean_peer(self, prefix: str) -> list[list[float]]:
        """For each epoch, the mean over the peers of each seed."""

        def value(record: Record) -> float | None:
            found = [record[k] for k in (prefix + peer for peer in self.peers) if k in record]
            return mean(found) if found and len(found) == len(self.peers) else None

        return self.columns(value)


def settings_of(settings: Mapping[str, Sequence[Result]]) -> list[Setting]:
    """The settings, numbered in the order of the tables. Their labels are one line each."""
    found: list[Setting] = []
    for i, (label, results) in enumerate(settings.items(), 1):
        line = one_line(label)
        line += f" ({i})" if line in [s.label for s in found] else ""
        found.append(Setting(i, line, results))
    return found


def one_line(label: str) -> str:
    """A label without control characters, with single spaces."""
    return " ".join("".join(c if c.isprintable() else " " for c in label).split())


def top1_of(setting: Setting, classifier: str) -> list[float]:
    """Test accuracies in % after the last epoch, of the seeds that measured them."""
    found = (r.scores.accuracy("last", classifier) for r in setting.results)
    return [value for value in found if value is not None]


def named(some: Sequence[Setting], every: Sequence[Setting]) -> str:
    """Words for some of the settings."""
    if len(some) == len(every):
        return "all settings" if len(every) > 1 else every[0].label
    return "; ".join(s.title for s in some)


def folds(parts: Mapping[Setting, Sequence[Part]], of_several: bool) -> list[Part]:
    """The parts of each setting, folded; if the page is on one setting alone, as they are."""
    if of_several:
        return [Fold(s.title, of) for s, of in parts.items()]
    return [part for of in parts.values() for part in of]


def kept_peer(result: Result) -> str:
    """The peer that ships; an early run does not say which peer its leader copies."""
    kept = result.scores.kept[0]
    peer = result.manifest.students.get(kept)
    return kept if peer is None else f"peer{peer}"


def key_of(settings: Sequence[Setting]) -> Key:
    """The key of a figure that shows these settings."""
    return Key([(s.number, sample(s.style), s.label) for s in settings])


def numbered(settings: Sequence[Setting], rows: Iterator[list[str]]) -> list[list[str]]:
    """Rows that begin with a label, with the setting's number in its place."""
    numbers = {s.label: s.head for s in settings}
    return [[numbers[label], *cells] for label, *cells in rows]
