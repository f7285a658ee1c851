"""The command `info`: what a store holds."""

from contextlib import closing

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result, StoreFacts, StoresFacts
from densecli.shards.config import StoreSettings


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
        text = "\n\n".join(map(describer.report, described))
        options.say(text, {"store": store.root, "parts": described})
    else:
        options.say(describer.report(described[0]), described[0])
