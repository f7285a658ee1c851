"""The picture: large enough to read, every cell in its kind's colour."""

import dataclasses

import numpy as np
import pytest

from densecli.core.drawing import STUFF, THING
from densecli.evaluation.preview import View, contact_sheet


def view(height=96, width=96, rows=2, columns=3, label="kite", title="scene 0"):
    side = max(height, width)
    ys, xs = np.linspace(0, height / side, rows + 1), np.linspace(0, width / side, columns + 1)
    boxes = [(xs[j], ys[i], xs[j + 1], ys[i + 1]) for i in range(rows) for j in range(columns)]
    n = rows * columns
    return View(
        image=np.full((height, width, 3), 128, np.uint8),
        boxes=np.array(boxes, np.float32),
        labels=[label] * n,
        thing=[k % 2 == 0 for k in range(n)],
        confidence=[0.5] * n,
        title=title,
    )


def centres_by_colour(picture, colour):
    """Mean x and y of the pixels of exactly this colour."""
    ys, xs = np.nonzero((np.asarray(picture) == colour).all(2))
    return xs.mean(), ys.mean()


@pytest.mark.parametrize(("height", "width"), [(96, 96), (60, 96), (512, 384)])
def test_contact_sheet__small_photos_are_enlarged(height, width):
    picture = contact_sheet([view(height, width)])
    assert min(picture.size) >= 480
    # The aspect stays: what is beyond the photo is the same frame of title, gaps and legend for all.
    scale = max(1, 480 / min(height, width))
    assert picture.width == round(width * scale) + 20


def test_contact_sheet__thing_and_stuff_lie_where_their_cells_are():
    picture = contact_sheet([dataclasses.replace(view(rows=1, columns=2), title="")])
    photo = picture.crop((10, 10, picture.width - 10, 10 + 480))
    thing, stuff = centres_by_colour(photo, THING), centres_by_colour(photo, STUFF)
    assert thing == pytest.approx((120, 240), abs=3) and stuff == pytest.approx((360, 240), abs=3)


def test_contact_sheet__a_padded_canvas_shows_cells_at_the_same_place():
    plain = view(height=60, width=96, title="")
    padded = dataclasses.replace(plain, image=np.pad(plain.image, ((0, 36), (0, 0), (0, 0))))
    a = np.asarray(contact_sheet([plain], min_side=600))[10:610, 10:970]
    b = np.asarray(contact_sheet([padded], min_side=960))[10:610, 10:970]
    frames = [(picture == THING).all(2) for picture in (a, b)]
    assert frames[0].sum() > 1000 and (frames[0] != frames[1]).mean() < 1e-3


@pytest.mark.parametrize(
    "label", ["conveyer belt, conveyor belt, conveyer", "x" * 60, "building-other-merged"]
)
def test_contact_sheet__a_label_never_leaves_its_cell(label):
    text_only = view(rows=6, columns=6, label=label, title="")
    one = dataclasses.replace(
        text_only, boxes=text_only.boxes[14:15], labels=[label], thing=[True], confidence=[1.0]
    )
    picture = np.asarray(contact_sheet([one]))[10:490, 10:490]
    changed = (picture != 128).any(2)
    ys, xs = np.nonzero(changed)
    assert xs.min() >= 159 and xs.max() <= 241 and ys.min() >= 159 and ys.max() <= 241


def test_contact_sheet__one_row_after_another():
    sheet = contact_sheet([view()] * 5, columns=2)
    single = contact_sheet([view()])
    assert sheet.width == 2 * (single.width - 10) + 10
    assert sheet.height > 3 * 480


def test_contact_sheet__cells_that_are_not_kept_are_faint_and_without_a_frame():
    whole = np.asarray(contact_sheet([view(rows=1, columns=2)]))
    halved = np.asarray(contact_sheet([dataclasses.replace(view(rows=1, columns=2), kept=[False, True])]))
    above_legend = slice(0, -40)

    def frames(picture, colour):
        return int((picture[above_legend] == colour).all(2).sum())

    # The first cell is a thing's, the second stuff's.
    assert frames(whole, THING) > 0 and frames(halved, THING) == 0
    assert frames(halved, STUFF) == frames(whole, STUFF)
    left = halved[above_legend][60:-60, 30:200]
    assert left.min() > 200
