"""Builds without Ray, in the test's own process."""

from dataclasses import replace

from pipeline.build import Report
from pipeline.config import BuildConfig
from pipeline.job import Job, prepare, unit_of
from pipeline.sources import Source
from shards.store import Column, Store


def build_here(config: BuildConfig) -> tuple[Job, list[Report]]:
    """What build-shards does, one shard after another; the job with its store as it is there."""
    job, source = prepare(config)
    reports = build_missing(job, source, config.shard_size)
    return replace(job, store=Store.open(job.store.root)), reports


def build_missing(job: Job, source: Source, shard_size: int) -> list[Report]:
    todo = missing_shards(job.columns())
    builder = job.builder()
    return [builder.build(unit_of(source, shard, shard_size)) for shard in todo]


def missing_shards(columns: list[Column]) -> list[str]:
    """The shards that lack a column, in order."""
    return sorted({shard for column in columns for shard in column.missing()})
