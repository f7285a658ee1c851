"""Manifests of what a build or a relabelling writes: withdrawn before it, published after it."""

from collections.abc import Sequence
from contextlib import closing

from densecli.core.progress import Progress
from densecli.shards.column import Column
from densecli.shards.manifest import lacks_manifest, withdraw
from densecli.shards.receipt_totals import publish

# Seconds until the counting of receipts is worth a line.
_SILENCE = 5.0


def withdraw_manifests(columns: Sequence[Column], missing: Sequence[Sequence[str]]) -> None:
    """Removes the manifests of the columns that lack shards, before these are built.

    Args:
        columns: The columns.
        missing: The shards that each of them lacks.
    """
    for column, shards in zip(columns, missing, strict=True):
        if shards:
            withdraw(column)


def publish_manifests(columns: Sequence[Column]) -> None:
    """Writes the manifests of those columns that are finished and have none, or a damaged one.

    Raises:
        DenseCLIError: A receipt is damaged, or the store cannot be written.
    """
    todo = [column for column in columns if lacks_manifest(column)]
    shards = sum(len(column.shard_names) for column in todo)
    if todo:
        with closing(Progress(shards, "receipts", silence=_SILENCE)) as progress:
            for column in todo:
                publish(column, progress.advance)
