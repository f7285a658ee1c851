"""A photo of a store by its key, and a panel for each column that says something of it."""

from typing import ClassVar

import numpy as np
import pytest
from PIL import Image
from registries import put

from densecli.core.errors import DenseCLIError
from densecli.evaluation.preview import (
    PreviewRequest,
    draw_preview,
    find_record,
    retrieved_view,
    retrieved_views,
)
from densecli.shards.codecs import CODECS, LowRank, Rows, TopK
from densecli.shards.kinds import KINDS, TargetKind
from densecli.shards.quantise import ALL
from densecli.shards.regions import GridPlan
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, jpg_bytes, npz_bytes

NAMES, THINGS = ("boat", "sky", "kite"), (True, False, True)
THINGS_OF = np.array(THINGS)


@pytest.fixture
def store(tmp_path):
    plan = GridPlan()
    store = Store.create(tmp_path, {"name": "x"}, 64, [2, 1])
    regions = store.add_column("regions", plan.name, plan.spec)
    cells = plan.boxes([0, 0, 1, 0.5])
    rng = np.random.default_rng(0)
    views = np.array([1, 3], np.int32)
    rows = sum(len(cells.view(v)) for v in views)
    grid = np.array([4, 4], np.int32)
    crop = {"name": "crops", "crop": {"side": 32, "context": 1.0}}
    probabilities = rng.dirichlet(np.ones(3), len(cells.boxes))
    probabilities_of_crops = rng.dirichlet(np.ones(3), rows)
    targets = {
        "v": ({"name": "labels", "categories": NAMES}, TopK(things=THINGS), probabilities, {}),
        "relabel-crops-v": (
            {"name": "crop-labels", "categories": NAMES},
            TopK(things=THINGS),
            probabilities_of_crops,
            {"views": views},
        ),
        "crops-v": (crop, Rows(), rng.normal(size=(rows, 8)), {"views": views}),
        "self-v": ({"name": "self"}, LowRank(rank=4), rng.normal(size=(16, 8)), {"grid": grid}),
    }
    parts = [
        (store.images, {"jpg": jpg_bytes(Image.new("RGB", (64, 32), (90, 90, 90)))}),
        (regions, {"npz": npz_bytes({"boxes": cells.boxes, "offsets": cells.offsets})}),
    ]
    for name, (target, codec, x, more) in targets.items():
        spec = {"target": target, "codec": codec.spec, **({} if "grid" in more else {"regions": regions.key})}
        column = store.add_column("targets", name, spec)
        parts.append((column, {"npz": npz_bytes({**codec.encode(x)[0], **more})}))
    for column, members in parts:
        for shard, keys in (("000000", "ab"), ("000001", "c")):
            writer = ShardWriter(column, shard)
            for key in keys:
                writer.add(key, members)
            writer.commit()
    return store


def preview(store, columns, key, **request):
    return draw_preview(store, columns, PreviewRequest(key=key, **request))


@pytest.mark.parametrize("key", ["a", "b", "c"])
def test_find_record__in_any_shard(store, key):
    column = store.find("targets", "self-v")
    record = find_record(store, [column], key)
    assert record.key == key and set(record.parts) == {"images", "self-v"}


def test_retrieved_view__of_crops_has_the_rows_of_that_view(store):
    """Rows are stored view by view: those of view 1, then those of view 3."""
    column = store.find("targets", "relabel-crops-v")
    record = find_record(store, [store.regions_of(column), column], "a")
    p = column.codec.decode(record.arrays(column.part))
    sizes = np.diff(record.regions().offsets)
    for view, rows in ((1, p[: sizes[1]]), (3, p[sizes[1] :])):
        found = retrieved_view(record, column, view=view)
        assert len(found.boxes) == sizes[view] == len(rows)
        np.testing.assert_allclose(found.confidence, rows.max(axis=1))
    with pytest.raises(DenseCLIError, match="no labels of view 2 of a") as caught:
        retrieved_view(record, column, view=2)
    assert "1, 3" in caught.value.hint
    assert preview(store, [column], "a", view=0, point=(0.5, 0.5)).height > 100


def test_find_record__unknown_key_names_some_that_are_there(store):
    with pytest.raises(DenseCLIError, match="no sample z") as caught:
        find_record(store, [], "z")
    assert "a, b, c" in caught.value.hint


def test_draw_preview__has_a_panel_for_each_column(store):
    def height(*names):
        columns = [store.find("targets", name) for name in names]
        return preview(store, columns, "b", view=6, point=(0.5, 0.5)).height

    each = [height(name) for name in ("v", "crops-v", "self-v")]
    assert min(each) > 100
    assert height("v", "crops-v", "self-v") == sum(each)


def test_draw_preview__follows_the_view_and_the_point(store):
    labels, tokens = store.find("targets", "v"), store.find("targets", "self-v")
    for column, changes in ((labels, {"view": 7}), (tokens, {"point": (0.9, 0.9)})):
        chosen = {"view": 6, "point": (0.1, 0.1)}
        one = np.asarray(preview(store, [column], "b", **chosen))
        assert not np.array_equal(one, np.asarray(preview(store, [column], "b", **{**chosen, **changes})))
    with pytest.raises(DenseCLIError, match="no view 25") as caught:
        preview(store, [labels], "b", view=25, point=(0.5, 0.5))
    assert caught.value.hint == "Choose one of 0 to 24."


def test_draw_preview__the_view_that_is_taken_is_there(store, monkeypatch):
    labels = store.find("targets", "v")

    def drawn(view):
        return np.asarray(preview(store, [labels], "b", view=view, point=(0.5, 0.5)))

    assert np.array_equal(drawn(None), drawn(6))
    # As of a photo that has fewer views, such as one with masks.
    monkeypatch.setattr("densecli.evaluation.preview.VIEW", 99)
    assert np.array_equal(drawn(None), drawn(24))


def test_draw_preview__a_live_teacher_stands_beside_its_factor(store):
    tokens, asked = store.find("targets", "self-v"), []

    def live(column, key):
        asked.append((column.name, key))
        return np.random.default_rng(1).normal(size=(4, 4, 8))

    chosen = {"view": 6, "point": (0.5, 0.5)}
    alone = preview(store, [tokens], "b", **chosen)
    beside = preview(store, [tokens], "b", **chosen, live_teacher=live)
    assert beside.width > 2.5 * alone.width and asked == [("self-v", "b")]


class Halves:
    """Tokens as the two halves of their numbers, a codec of a plug-in's."""

    spec: ClassVar = {"name": "halves"}

    def encode(self, x):
        return dict(zip(("left", "right"), np.split(x.astype(np.float32), 2, axis=1), strict=True)), {}

    def decode(self, arrays, rows=ALL):
        return np.concatenate([arrays["left"], arrays["right"]], axis=1)[rows]


def add_column(store, name, spec, arrays):
    column = store.add_column("targets", name, spec)
    for shard, keys in (("000000", "ab"), ("000001", "c")):
        writer = ShardWriter(column, shard)
        for key in keys:
            writer.add(key, {"npz": npz_bytes(arrays)})
        writer.commit()
    return column


def test_draw_preview__decodes_what_the_codec_of_a_plug_in_stored(store, monkeypatch):
    put(monkeypatch, CODECS, "halves", Halves)
    tokens, grid = np.random.default_rng(3).normal(size=(16, 8)), np.array([4, 4], np.int32)
    drawn = []
    for name, codec in (("self-halves", Halves()), ("self-rows", Rows(dtype="fp32"))):
        spec = {"target": {"name": "self"}, "codec": codec.spec}
        column = add_column(store, name, spec, {**codec.encode(tokens)[0], "grid": grid})
        drawn.append(np.asarray(preview(store, [column], "a", view=0, point=(0.3, 0.3))))
    # Below the title.
    np.testing.assert_array_equal(drawn[0][60:], drawn[1][60:])


def test_draw_preview__crops_where_a_kind_says_no_categories_of_the_cells(store, monkeypatch):
    put(monkeypatch, KINDS, "colours", TargetKind(name="colours", prefix="colours-", layout="cells"))
    regions = store.regions_of(store.find("targets", "v"))
    boxes = np.ones((len(GridPlan().boxes([0, 0, 1, 0.5]).boxes), 3), np.float32)
    spec = {"target": {"name": "colours"}, "codec": Rows().spec, "regions": regions.key}
    column = add_column(store, "colours-v", spec, Rows().encode(boxes)[0])
    one, all_cells = (preview(store, [column], "a", view=view, point=(0.5, 0.5)) for view in (0, 24))
    assert min(one.height, all_cells.height) > 90 and one.size != all_cells.size
    with pytest.raises(DenseCLIError, match="no view 25"):
        preview(store, [column], "a", view=25, point=(0.5, 0.5))


def test_draw_preview__denoised_labels_stand_beside_the_retrieved(store):
    labels, chosen = store.find("targets", "v"), {"view": 6, "point": (0.5, 0.5)}
    alone = preview(store, [labels], "b", **chosen)
    assert preview(store, [labels], "b", **chosen, theta=0.5).width > 1.8 * alone.width


def test_draw_preview__students_before_what_is_stored(store):
    seen = []

    def student(canvas):
        seen.append(canvas.shape)
        return canvas[::16, ::16].astype(np.float32) + 1

    column = store.find("targets", "self-v")
    alone = preview(store, [column], "a", view=0, point=(0.5, 0.5))
    both = preview(
        store, [column], "a", view=0, point=(0.5, 0.5), students={"before": student, "after": student}
    )
    assert seen == [(64, 64, 3)] * 2
    assert both.height > alone.height
    below = np.asarray(both)[-alone.height :, : alone.width]
    np.testing.assert_array_equal(below, np.asarray(alone))


def test_retrieved_views__the_first_photos_with_the_labels_of_one_view(tmp_path) -> None:
    plan, codec = GridPlan(), TopK(things=THINGS, k=2, dtype="fp32")
    store = Store.create(tmp_path, {"name": "x"}, 64, [2, 2])
    regions = store.add_column("regions", plan.name, plan.spec)
    spec = {"target": {"categories": NAMES}, "codec": codec.spec, "regions": regions.key}
    labels = store.add_column("targets", "v", spec)
    cells, told = plan.boxes([0, 0, 1, 0.5]), {}
    for shard in store.shard_names:
        writers = [ShardWriter(column, shard) for column in (store.images, regions, labels)]
        for i in range(2):
            key = f"{shard}-{i}"
            told[key] = np.random.default_rng(len(told)).dirichlet(np.ones(3), len(cells.boxes))
            parts = (
                {"jpg": jpg_bytes(Image.new("RGB", (64, 32)))},
                {"npz": npz_bytes({"boxes": cells.boxes, "offsets": cells.offsets})},
                {"npz": npz_bytes(codec.encode(told[key])[0])},
            )
            for writer, part in zip(writers, parts, strict=True):
                writer.add(key, part)
        for writer in writers:
            writer.commit()

    views = retrieved_views(store, labels, view=6, limit=3)
    assert [view.title for view in views] == ["000000-0", "000000-1", "000001-0"]
    rows = cells.view(6)
    for view in views:
        p = told[view.title][rows]
        assert view.image.shape == (32, 64, 3)
        np.testing.assert_array_equal(view.boxes, cells.boxes[rows])
        assert view.labels == [NAMES[i] for i in p.argmax(1)]
        assert view.thing == [THINGS[i] for i in p.argmax(1)]
        assert view.confidence == pytest.approx(p.max(1), abs=1e-6)

    # Denoised: no cell that is unsure, and things beside things alone.
    for view, plain in zip(retrieved_views(store, labels, view=6, limit=3, theta=0.6), views, strict=True):
        assert view.title.startswith(plain.title) and "theta 0.6" in view.title
        p = told[plain.title][rows]
        assert view.kept == (p.max(1) > 0.6).tolist() and 0 < sum(view.kept) < len(rows)
        assert view.labels == plain.labels
        is_thing = THINGS_OF[p.argmax(1)]
        assert is_thing.any() and not is_thing.all()
        beside = np.where(is_thing, p[:, THINGS_OF].sum(1), 1)
        assert view.confidence == pytest.approx(p.max(1) / beside, abs=1e-6)
