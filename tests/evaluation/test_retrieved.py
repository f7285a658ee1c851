import numpy as np
import pytest
from PIL import Image

from densecli.evaluation.retrieved import retrieved_views
from densecli.shards.codecs import TopK
from densecli.shards.regions import GridPlan
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, jpg_bytes, npz_bytes

NAMES, THINGS = ("boat", "sky", "kite"), (True, False, True)
THINGS_OF = np.array(THINGS)


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
