"""Labelled images that a run did not begin with, to measure it on."""

import dataclasses
from pathlib import Path

import torch

from codistill.data.batches.boxes import EVAL_CROP
from codistill.data.batches.streamed import StreamedEvalBatches
from codistill.data.batches.workers import available_cores
from codistill.data.by_name import IN_MEMORY
from codistill.data.encoded import EncodedDataset, EncodedSplit
from codistill.data.normalisation import IMAGENET, Normalisation
from codistill.errors import InputError
from codistill.messages import quoted
from codistill.runs.run import Run
from codistill.settings.build_data import STREAMED_EVAL_BATCH, open_with
from codistill.settings.data_config import DataConfig

ALL = "all"
_LOOKED_AT = 100  # images that are compared with the run's


def other_images(
    run: Run, given: DataConfig, split: str
) -> tuple[StreamedEvalBatches, list[str]] | None:
    """The images at another place, with the labels of the run's classes, and what was taken.

    Args:
        run: the run. It says size and normalisation.
        given: name and place of the images, and how their labels and splits are found.
        split: "test" or "val", or "all" for all images, whatever they are.

    Returns:
        None if these are the images that the run began with.

    Raises:
        InputError: they have a class that the run does not know, or may be the run's own images,
            changed.
    """
    if given.name in IN_MEMORY:
        return None
    dataset = open_with(given, fewest=1)
    if split != ALL and dataset.fingerprint == run.manifest.fingerprint:
        return None
    labels = _labels(run, given, dataset)
    if split != ALL:
        _refuse_changed(run, given, dataset)
    part, name = _part(dataset, given, split)
    part = dataclasses.replace(part, labels=labels[part.labels])
    data, about = run.config.data, run.manifest
    workers = available_cores() if data.workers is None else data.workers
    batches = StreamedEvalBatches(
        part,
        STREAMED_EVAL_BATCH,
        Normalisation(data.mean or IMAGENET.mean, data.std or IMAGENET.std),
        about.image_size[0],
        workers,
        run.device,
        crop=1.0 if data.name in IN_MEMORY else EVAL_CROP,
    )
    absent = [c for i, c in enumerate(about.classes) if not (part.labels == i).any()]
    notes = [*dataset.taken(), f"measured on {name}", *dataset.notes]
    return batches, notes + ([f"no image of the class {quoted(absent)}"] if absent else [])


def _labels(run: Run, given: DataConfig, dataset: EncodedDataset) -> torch.Tensor:
    """The run's label of each class of the data set."""
    known = {name: label for label, name in enumerate(run.manifest.classes)}
    if unknown := [name for name in dataset.classes if name not in known]:
        raise InputError(
            f"{given.root} has the classes {quoted(unknown)}, which {run.path} does not know, but "
            f"{quoted(known)}: rename or remove them"
        )
    return torch.tensor([known[name] for name in dataset.classes])


def _part(dataset: EncodedDataset, given: DataConfig, split: str) -> tuple[EncodedSplit, str]:
    """The images of a split, and what to call them; all, if nothing is divided."""
    if split == ALL or set(dataset.splits) == {"all"}:
        first, *others = dataset.splits.values()
        for part in others:
            first = first.join(part)
        return first, "all images"
    if split == "test" and split not in dataset.splits:
        split = "val"
    if split not in dataset.splits:
        raise InputError(f"{given.root} has no split {split!r}: give --split all for all images")
    return dataset.splits[split], f"its {split} split"


def _refuse_changed(run: Run, given: DataConfig, dataset: EncodedDataset) -> None:
    """Raises InputError if these may be the run's own images: most of those were trained on."""
    count, began_with = sum(map(len, dataset.splits.values())), sum(run.manifest.images.values())
    why = ""
    if run.config.data.name not in IN_MEMORY:
        try:
            shared, looked_at = _shared(dataset, open_with(run.made_with.data))
            if shared > looked_at / 2:
                why = f"{shared:,} of {looked_at:,} that were looked at are among them"
        except InputError:  # they are no longer where they were
            if abs(count - began_with) <= 0.1 * began_with:
                why = f"they are {count:,}, and it began with {began_with:,}"
    if why:
        raise InputError(
            f"the images at {given.root} are not those that {run.path} began with, but {why}: "
            "restore them, or give --split all to measure on all of these"
        )


def _shared(dataset: EncodedDataset, own: EncodedDataset) -> tuple[int, int]:
    """How many images are the same in both, of how many that were looked at."""
    known = {
        (own.classes[label], Path(part.name(i)).name): (part, i)
        for part in own.splits.values()
        for i, label in enumerate(part.labels.tolist())
    }
    part = max(dataset.splits.values(), key=len)
    places = torch.linspace(0, len(part) - 1, min(_LOOKED_AT, len(part))).long().tolist()
    shared = 0
    for i in places:
        key = dataset.classes[int(part.labels[i])], Path(part.name(i)).name
        if key in known:
            theirs, place = known[key]
            try:
                shared += theirs.read(place) == part.read(i)
            except OSError:
                continue
    return shared, len(places)
