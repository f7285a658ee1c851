"""Builds without Ray, in the test's own process."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace

import pytest

from densecli.pipeline import build_shards as engine
from densecli.pipeline.build_request import BuildRequest, prepare, unit_of
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.relabel import RelabelRequest
from densecli.pipeline.relabeller import Relabeller
from densecli.pipeline.sources import Source
from densecli.pipeline.unit import Report
from densecli.shards.store import Column, Store


def build_here(config: BuildConfig) -> tuple[BuildRequest, list[Report]]:
    """What build-shards does, one shard after another; the request with its store as it is there."""
    request, source = prepare(config)
    reports = build_missing(request, source, config.shard_size)
    return replace(request, store=Store.open(request.store.root)), reports


def build_missing(request: BuildRequest, source: Source, shard_size: int) -> list[Report]:
    todo = missing_shards(request.columns())
    builder = request.builder()
    return [builder.build(unit_of(source, shard, shard_size)) for shard in todo]


def missing_shards(columns: list[Column]) -> list[str]:
    """The shards that lack a column, in order."""
    return sorted({shard for column in columns for shard in column.missing()})


def relabeller_of(request: RelabelRequest) -> Relabeller:
    """The relabeller, once its columns are there, as in `relabel`."""
    for column in (request.regions, request.labels):
        request.store.make(column)
    return request.relabeller()


class ThisProcess:
    """In place of a pool of workers."""

    def __init__(self, request: BuildRequest, *_: object) -> None:
        self.builder = request.builder()

    def named_left_out(self) -> list[str]:
        return []


@contextmanager
def without_ray() -> Iterator[None]:
    """`build-shards` in the block builds in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine, "connected", lambda *_: nullcontext())
        patch.setattr(engine, "WorkerPool", ThisProcess)
        patch.setattr(
            engine, "run_units", lambda units, pool, *_: (pool.builder.build(unit) for unit in units if unit)
        )
        yield
