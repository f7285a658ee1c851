"""What is said of a build that a signal stopped."""

import signal

import numpy as np
import pytest

from densecli.core.errors import Interrupted
from densecli.pipeline.build_shards import NOTHING_KEPT
from densecli.pipeline.summary import totals_of
from densecli.shards.store import Column, Store
from densecli.shards.writer import ShardWriter, npz_bytes


def commit(column: Column, shard: str) -> None:
    writer = ShardWriter(column, shard)
    writer.add("a", {"npz": npz_bytes({"x": np.zeros(1)})})
    writer.commit()


def stopped(store: Store, columns: list[Column], **words: str) -> Interrupted:
    with (
        pytest.raises(Interrupted) as caught,
        totals_of(store, store.shard_names, columns, **words) as totals,
    ):
        totals.stop.signal = signal.SIGINT
    return caught.value


def test_totals__a_stopped_build_says_what_was_kept_of_each_column(tmp_path) -> None:
    store = Store.create(tmp_path, {"name": "x", "split": "", "digest": "", "n": 2}, 64, [1, 1])
    columns = [store.images, store.add_column("regions", "grid-paper", {})]
    error = stopped(store, columns, run="the build", if_nothing_kept=NOTHING_KEPT)
    assert "nothing was kept, because no shard was finished" in str(error)
    assert "starts again" in error.hint and "--shard-size" in error.hint
    assert "--shard-size" not in stopped(store, columns, run="the relabelling").hint
    commit(store.images, "000001")
    error = stopped(store, columns, run="the build", if_nothing_kept=NOTHING_KEPT)
    assert "of 2 shards were kept: 1 of images, 0 of grid-paper." in str(error)
    assert "continues with the others" in error.hint and error.exit_code == 130
