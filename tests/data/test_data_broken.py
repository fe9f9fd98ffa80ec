"""A broken image among many stops nobody: replaced, left out, said once, written down."""

import logging

import pytest
import torch
from photo_fakes import plain

from codistill.data import (
    CropAugmentation,
    Normalisation,
    StreamedEvalBatches,
    StreamedTrainBatches,
)
from codistill.data.batches.broken import BrokenImages
from codistill.errors import InputError

AS_IT_IS = Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


@pytest.fixture
def split(tmp_path):
    """Twenty images filled with their number, the eighth of which is cut off."""
    split = plain(tmp_path / "photos", list(range(20)))
    file = tmp_path / "photos" / "class0" / "008.png"
    file.write_bytes(file.read_bytes()[:40])
    return split


def numbers(batch):
    return batch.views[0][:, 0, 0, 0].int().tolist()


def train(split, broken=None, workers=0, seed=0):
    augmentation = CropAugmentation(8)
    return StreamedTrainBatches(
        split, 5, AS_IT_IS, augmentation, seed=seed, workers=workers, broken=broken
    )


def test_in_training_another_image_takes_its_place_with_its_own_label(split):
    batches = list(train(split))
    seen = [i for b in batches for i in numbers(b)]
    assert [len(b.labels) for b in batches] == [5, 5, 5, 5]
    assert set(seen) == set(range(20)) - {8}
    for batch in batches:
        assert batch.labels.tolist() == [i % 2 for i in numbers(batch)]


def test_which_one_is_drawn_from_seed_and_epoch(split):
    def doubled(seed, epoch):
        batches = train(split, seed=seed)
        batches.start_at(epoch)
        seen = [i for b in batches for i in numbers(b)]
        return next(i for i in seen if seen.count(i) == 2)

    assert doubled(0, 0) == doubled(0, 0)
    assert len({doubled(0, epoch) for epoch in range(4)}) > 1
    assert len({doubled(seed, 0) for seed in range(4)}) > 1


def test_in_evaluation_it_is_left_out(split):
    batches = list(StreamedEvalBatches(split, 5, AS_IT_IS, 8))
    seen = [i for b in batches for i in numbers(b)]
    assert seen == [i for i in (*range(0, 20, 2), *range(1, 20, 2)) if i != 8]
    assert [i % 2 for i in seen] == torch.cat([b.labels for b in batches]).tolist()


def test_a_batch_of_broken_images_only_is_left_out(split):
    broken = BrokenImages(20)
    batches = StreamedEvalBatches(split, 1, AS_IT_IS, 8, broken=broken)
    assert len(list(batches)) == 19
    assert list(broken.found) == ["class0/008.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_it_is_said_once_and_written_down_once(split, tmp_path, caplog, workers):
    broken = BrokenImages(20)
    broken.keep_in(tmp_path / "broken_images.txt")
    batches = train(split, broken, workers)
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            batches.start_at(epoch)
            list(batches)
        list(StreamedEvalBatches(split, 5, AS_IT_IS, 8, workers, broken=broken))
    (note,) = caplog.messages
    assert note.startswith("codistill: note: image class0/008.png is broken (")
    (line,) = (tmp_path / "broken_images.txt").read_text().splitlines()
    assert line.startswith("class0/008.png\t")


def test_what_was_found_before_is_kept_and_not_said_again(tmp_path, caplog):
    file = tmp_path / "broken_images.txt"
    first = BrokenImages(1000)
    first.add([("early.jpg", "it is empty")])
    first.keep_in(file)
    second = BrokenImages(1000)
    second.keep_in(file)
    caplog.clear()
    second.add([("early.jpg", "it is empty"), ("late.jpg", "it is a text")])
    assert len(caplog.messages) == 1
    assert "late.jpg" in caplog.messages[0]
    assert file.read_text() == "early.jpg\tit is empty\nlate.jpg\tit is a text\n"


def test_without_broken_images_there_is_no_file(tmp_path):
    BrokenImages(10).keep_in(tmp_path / "broken_images.txt")
    assert not (tmp_path / "broken_images.txt").exists()


def test_names_that_are_no_text_are_written_as_one_line(tmp_path):
    broken = BrokenImages(1000)
    broken.keep_in(tmp_path / "broken_images.txt")
    for _ in range(2):
        broken.add([("a\tb\nc\udcff.jpg", "is\nbroken")])
    assert (tmp_path / "broken_images.txt").read_text() == "a\\tb\\nc\\udcff.jpg\tis\\nbroken\n"
    again = BrokenImages(1000)
    again.keep_in(tmp_path / "broken_images.txt")
    assert again.found == broken.found


def test_only_the_first_few_are_named(caplog):
    broken = BrokenImages(1000)
    broken.add((f"{i}.jpg", "it is empty") for i in range(50))
    assert len(caplog.messages) == 5
    assert "further ones are only written down" in caplog.messages[-1]


def test_more_than_a_tenth_is_an_error():
    broken = BrokenImages(100)
    broken.add((f"{i}.jpg", "it is empty") for i in range(10))
    with pytest.raises(InputError, match=r"11 of 100 images are broken, such as 0\.jpg"):
        broken.add([("last.jpg", "it is empty")])


def test_a_folder_of_broken_images_ends_in_an_error(tmp_path):
    split = plain(tmp_path / "photos", list(range(20)))
    for file in (tmp_path / "photos").rglob("*.png"):
        file.write_bytes(b"")
    with pytest.raises(InputError, match="broken"):
        list(train(split))
    with pytest.raises(InputError, match="broken"):
        list(StreamedEvalBatches(split, 5, AS_IT_IS, 8))
