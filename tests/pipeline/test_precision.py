"""The precision of teachers: part of the column, its cost measured, no reason to build an old store anew."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from building import build_here

from densecli.core.device import Precision, full_precision
from densecli.core.errors import DenseCLIError
from densecli.pipeline import build_request
from densecli.pipeline.batcher import live_targets
from densecli.pipeline.build_request import prepare
from densecli.pipeline.verify import VerifyConfig, verify
from densecli.shards.codecs import LowRank
from densecli.shards.joined import read_joined

TEACHERS = ("scenes-pvlm", "crops-scenes-s", "self-scenes-s")


@pytest.fixture
def trained(tiny):
    """The world's own teachers with their weights, of which cosines are worth measuring."""
    return replace(tiny, teachers=TEACHERS, weights={}, limit=3, shard_size=2, views=1)


@pytest.fixture
def on_a_gpu(monkeypatch):
    monkeypatch.setattr(
        build_request, "pick_device", lambda name: torch.device("cuda" if name == "auto" else name)
    )


def test_fp16__is_stored_as_the_live_teacher_in_fp16_says(trained, photo_of):
    request, _ = build_here(replace(trained, teacher_precision="fp16"))
    full, _ = build_here(replace(trained, teacher_precision="fp32"))
    for column, of_full, (config, _) in zip(
        request.columns()[2:], full.columns()[2:], request.targets, strict=True
    ):
        assert (column.spec["precision"], column.precision, of_full.precision) == ("fp16", "fp16", "fp32")
        assert "precision" not in of_full.spec and column.id != of_full.id
        (record, *_) = read_joined([*request.columns()[:2], column], "000000")
        teacher = config.load("cpu")
        photo = photo_of(record, request.store.canvas)
        half, exact = (live_targets(teacher, [photo], precision=p)[0] for p in ("fp16", "fp32"))
        assert half.dtype == np.float32
        assert 0 < np.abs(half - exact).max() < 0.01
        if column.name == "scenes-pvlm":
            assert np.abs(half - exact).sum(1).max() / 2 < 5e-3


def test_fp16__its_cost_is_in_the_receipt_of_every_sixteenth_shard_and_in_verify(trained):
    request, _ = build_here(replace(trained, teacher_precision="fp16"))
    names = {"scenes-pvlm": "max_tv", "crops-scenes-s": "max_abs", "self-scenes-s": "max_abs"}
    for column in request.columns()[2:]:
        first, second = (column.receipt(shard).error for shard in request.store.shard_names)
        name = names[column.name].replace("max_", "max_fp32_")
        assert 0 < first[name] < 0.2 and name not in second
        # What is stored is nearer to the teacher that made it.
        assert first[name] != first[names[column.name]]
    checked = verify(VerifyConfig(store=request.store.root, samples=3, device="cpu", tolerance=1e-6))
    assert checked["verified"]
    for column in checked["columns"]:
        assert column["precision"] == "fp16"
        assert 0 < column["against_full_precision"][names[column["name"]].replace("max_", "max_fp32_")] < 0.2


def test_auto__is_fp16_on_a_gpu_and_fp32_on_a_cpu(trained, on_a_gpu):
    assert [spec.get("precision") for _, spec in prepare(replace(trained, device="auto"))[0].targets] == [
        "fp16"
    ] * 3
    request, _ = prepare(trained)
    assert request.targets == tuple((teacher, teacher.spec()) for teacher, _ in request.targets)


def test_auto__continues_the_column_that_there_is(trained, on_a_gpu):
    """A store of an earlier release, or of another device, is not built anew."""
    begun, _ = build_here(trained)
    gpu = replace(trained, device="auto")
    ids = [column.id for column in begun.columns()]
    assert [column.id for column in prepare(gpu)[0].columns()] == ids
    assert [c.id for c in prepare(replace(gpu, teacher_precision="fp16"))[0].columns()][2:] != ids[2:]
    # A column in fp16 beside it: each device goes on with its own.
    half, _ = build_here(replace(trained, teacher_precision="fp16"))
    assert [c.id for c in prepare(gpu)[0].columns()] == [c.id for c in half.columns()]
    assert [c.id for c in prepare(trained)[0].columns()] == ids


def test_factors__continue_a_column_of_a_full_decomposition(trained, monkeypatch):
    config = replace(trained, teachers=("self-scenes-s",), rank=8)
    with monkeypatch.context() as patch:
        patch.setattr(
            "densecli.pipeline.teachers.gram.factor_codec",
            lambda codec, settings, default_rank: codec(rank=settings.rank, dtype=settings.codec),
        )
        old, _ = build_here(config)
    assert old.columns()[2].spec["codec"] == LowRank(rank=8).spec
    again, reports = build_here(config)
    assert again.columns()[2].id == old.columns()[2].id and not reports
    assert verify(VerifyConfig(store=old.store.root, samples=2, device="cpu"))["verified"]
    new, _ = build_here(replace(config, store=f"{config.store}-new"))
    assert new.columns()[2].spec["codec"] == LowRank(rank=8, method="subspace").spec
    assert verify(VerifyConfig(store=new.store.root, samples=2, device="cpu"))["verified"]
    errors = [request.columns()[2].receipt("000000").error for request in (old, new)]
    assert errors[1]["rmse"] == pytest.approx(errors[0]["rmse"], rel=0.01)


def test_tf32__is_refused_on_a_cpu(trained):
    with pytest.raises(DenseCLIError, match="cannot compute in tf32 on cpu"):
        build_here(replace(trained, teacher_precision="tf32"))


@pytest.mark.parametrize(("name", "allowed"), [("fp32", False), ("tf32", True), ("fp16", True)])
def test_block__sets_the_arithmetic_and_puts_it_back(name, allowed):
    backends = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [backend.allow_tf32 for backend in backends]
    cpu = torch.device("cpu")
    with Precision(name=name, device=cpu).block():
        assert [backend.allow_tf32 for backend in backends] == [allowed, allowed]
        a = torch.ones(2, 2)
        assert (a @ a).dtype == (torch.float16 if name == "fp16" else torch.float32)
        with full_precision(cpu):
            assert (a @ a).dtype == torch.float32
            assert not any(backend.allow_tf32 for backend in backends)
    assert [backend.allow_tf32 for backend in backends] == before
