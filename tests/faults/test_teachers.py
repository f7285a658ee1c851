"""Teachers that run out of memory, and teachers that say nonsense."""

import numpy as np
import pytest
import torch

from densecli.core.errors import DenseCLIError
from densecli.pipeline.build_request import BuildRequest, prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.shard_builder import ShardBuilder
from densecli.pipeline.sources import Source
from densecli.shards.npz import decode_npz
from densecli.shards.tars import read_shard


@pytest.fixture
def build(tmp_path):
    """(request, source, builder) of two shards of generated scenes, in a store of that name."""

    def prepared(name: str) -> tuple[BuildRequest, Source, ShardBuilder]:
        config = BuildConfig(
            dataset="scenes",
            split="val",
            limit=16,
            store=str(tmp_path / name),
            shard_size=8,
            teachers=("scenes-s",),
            weights={"scenes-s": "random:0"},
            device="cpu",
            batch_size=8,
        )
        request, source = prepare(config)
        return request, source, request.builder()

    return prepared


def test_out_of_memory__once_is_a_smaller_batch_and_the_same_result(build, survived):
    stored, batches = {}, []
    for name in ("undisturbed", "short of memory"):
        request, source, builder = build(name)
        _, teacher = builder.config.targets[0]
        if name == "short of memory":
            look = teacher.forward

            def looking(pictures, look=look):
                batches.append(len(pictures))
                if len(batches) == 1:
                    raise torch.OutOfMemoryError("CUDA out of memory.")
                return look(pictures)

            teacher.forward = looking
        for shard in request.store.shard_names:
            builder.build(unit_of(source, shard, 8))
        labels = request.columns()[2]
        samples = [sample for shard in request.store.shard_names for sample in read_shard(labels, shard)]
        stored[name] = {key: decode_npz(parts["npz"]) for key, parts in samples}
    # What did not fit is not tried again.
    assert batches == [8, 4, 4, 4, 4]
    assert len(stored["undisturbed"]) == 16
    for key, arrays in stored["undisturbed"].items():
        assert stored["short of memory"][key].keys() == arrays.keys()
        np.testing.assert_allclose(stored["short of memory"][key]["p"], arrays["p"], atol=1e-3)
    survived("teacher out of memory once")


def test_nan__the_shard_is_refused_and_the_others_stay(build, survived):
    request, source, builder = build("store")
    _, teacher = builder.config.targets[0]
    look = teacher.forward
    builder.build(unit_of(source, "000000", 8))
    teacher.forward = lambda pictures: look(pictures) * float("nan")
    with pytest.raises(DenseCLIError, match="scenes-s returned NaN"):
        builder.build(unit_of(source, "000001", 8))
    assert [column.missing() for column in request.columns()] == [[], [], ["000001"]]
    teacher.forward = look
    builder.build(unit_of(source, "000001", 8))
    assert request.columns()[2].complete
    survived("NaN from a teacher")
