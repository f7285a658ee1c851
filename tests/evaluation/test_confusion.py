"""The confusion matrix in a picture: things before stuff, a share a cell, the same classes in all."""

import matplotlib
import numpy as np
import pytest

from densecli.evaluation.confusion import confusion_pictures
from densecli.evaluation.region_counts import PhotoCounts, count, summarize
from densecli.models.categories import Categories

# Stuff stands first here, so that the picture has to change the order.
NAMES = ("sky", "cat", "sea", "kite")
SET = Categories(name="four", names=NAMES, thing=np.array([False, True, False, True]))
SKY, CAT, SEA, KITE = range(4)


def result(*seen):
    """Of (true, predicted) masks; 4 has no token."""
    labels = np.array([true for true, _ in seen])
    scores = np.eye(5, dtype=np.float32)[[predicted for _, predicted in seen], :4]
    masks = count(scores, labels, np.full(len(labels), 10))
    return summarize(PhotoCounts(boxes=masks, masks=masks, skipped=0), SET, "x")


def coloured(picture, share):
    """Mask of the pixels that have the colour of that share, without the scale below."""
    colour = matplotlib.colormaps["cividis"](float(share), bytes=True)[:3]
    return (np.asarray(picture)[:-60] == colour).all(2)


def cells_of(picture, share):
    return int(coloured(picture, share).sum())


def test_confusion__a_cell_for_each_share():
    (picture,) = confusion_pictures([result((SKY, CAT), (SKY, SKY), (CAT, CAT), (SEA, SEA))])
    cell = (420 // 3) ** 2
    # cat and sea wholly right; sky half a cat; and nothing in the other 5 of 9, but for a line across.
    cells = [cells_of(picture, share) / cell for share in (0, 0.5, 1)]
    assert cells == pytest.approx([5, 2, 2], rel=0.05)


def test_confusion__things_come_first():
    (picture,) = confusion_pictures([result((SKY, CAT), (SKY, CAT), (KITE, KITE), (CAT, SEA))])
    yellow = np.argwhere(coloured(picture, 1))
    rows = np.unique(yellow[:, 0])
    # cat, kite | sky, sea: sky is called cat, below kite and to its left.
    by_row = {y: yellow[yellow[:, 0] == y, 1].mean() for y in (rows.min(), rows.max())}
    assert by_row[rows.max()] < by_row[rows.min()]


def test_confusion__before_and_after_have_the_same_classes():
    before, after = confusion_pictures([result((SKY, KITE)), result((SKY, SKY))])
    assert before.size == after.size


def test_confusion__masks_without_a_token_are_missing_from_their_row():
    (picture,) = confusion_pictures([result((SKY, SKY), (SKY, 4), (SEA, SEA), (SEA, 4))])
    assert cells_of(picture, 0.5) == 0 and cells_of(picture, 1) > 0


def test_confusion__a_hostile_name_does_not_grow_the_picture():
    names = ("x" * 10_000, "cat\n\x1b[31m", "sea", "kite")
    labels = np.array([0, 1])
    masks = count(np.eye(4, dtype=np.float32)[:2], labels, np.full(2, 10))
    categories = Categories(name="four", names=names, thing=np.array([False, True, False, True]))
    counts = PhotoCounts(boxes=masks, masks=masks, skipped=0)
    (picture,) = confusion_pictures([summarize(counts, categories, "x")])
    assert max(picture.size) < 1_000
