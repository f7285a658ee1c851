"""The command `info`: what a store holds."""

from contextlib import closing
from typing import Annotated, Any, NotRequired, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Passed, Photos, Result, Seconds
from densecli.shards.config import StoreSettings


class DescribedColumn(TypedDict):
    """A column of a store."""

    kind: Annotated[str, "images, regions or targets."]
    name: Annotated[str, "Name."]
    id: Annotated[str, "First digits of its key."]
    precision: Annotated[NotRequired[str], "Precision in which the teacher ran; of targets."]
    info: Annotated[dict[str, Any], "What the teacher says of itself: weights, their digest and more."]
    shards: Annotated[int, "Number of its shards."]
    missing: Annotated[int, "Shards that are not there."]
    manifest: Annotated[bool, "Whether it has a manifest."]
    computed: Annotated[bool, "Whether readers compute it, so that nothing is stored."]
    samples: Annotated[int, "Photos in its shards."]
    bytes: Annotated[int, "Bytes on disk."]
    seconds: Seconds
    gpu_seconds: Annotated[float, "Seconds of GPUs."]
    images_per_second: Annotated[float | None, "Photos a second of one worker."]
    error: Annotated[dict[str, float], "The codec's error, the largest or the mean over shards."]


class StoreFacts(TypedDict):
    """A store."""

    store: Annotated[str, "Address of the store."]
    dataset: Annotated[dict[str, Any], "Name, split and digest of the listing."]
    canvas: Annotated[int, "Side of the canvas in pixels."]
    shards: Annotated[int, "Number of shards."]
    planned: Annotated[int, "Photos that were listed."]
    skipped: Photos
    passed_over: Passed
    complete: Annotated[bool, "Whether no column lacks a shard."]
    bytes: Annotated[int, "Bytes on disk."]
    index_bytes: Annotated[int, "Of them, bytes of the listing of the data."]
    columns: Annotated[list[DescribedColumn], "Every column, photos first."]


class StoresFacts(TypedDict):
    """Several stores, or a store of parts."""

    store: Annotated[str, "Address."]
    together: Annotated[StoreFacts, "What all of them hold; a column of parts has no id."]
    parts: Annotated[list[StoreFacts], "Each of them."]


@command(
    StoreSettings,
    results=(
        Result(fields=StoreFacts),
        Result(fields=StoresFacts, when="of several stores, or a store of parts"),
    ),
)
def info(options: Options) -> None:
    """Show what a store holds, its size, and how fast it was built, stage by stage.

    \b
    densecli info stores/coco-512
    """
    from densecli.core.progress import Progress
    from densecli.shards import info as describer
    from densecli.shards.parted_store import open_store, parts_of

    store = open_store(options.store)
    columns = {part.root: [part.images, *part.columns()] for part in parts_of(store)}
    total = sum(len(column.shard_names) for found in columns.values() for column in found)
    with closing(Progress(total, "shards")) as progress:
        described = [
            describer.describe(part, progress.advance, columns=columns[part.root]) for part in parts_of(store)
        ]
    if described[1:]:
        together = describer.combined(store.root, described)
        text = f"{describer.report(together)}\n\n{describer.parts_text(described)}"
        options.say(text, {"store": store.root, "together": together, "parts": described})
    else:
        options.say(describer.report(described[0]), described[0])
