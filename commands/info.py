"""The command `info`: what a store holds."""

from contextlib import closing

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.shards.config import StoreSettings


@command(StoreSettings)
def info(options: Options) -> None:
    """Show what a store holds, its size, and how fast it was built, stage by stage.

    \b
    densecli info --store stores/coco-512
    """
    from densecli.core.progress import Progress
    from densecli.shards import info as describer
    from densecli.shards.store import Store

    store = Store.open(options.store)
    columns = [store.images, *store.columns()]
    with closing(Progress(len(store.shard_names) * len(columns), "shards")) as progress:
        described = describer.describe(store, progress.advance, columns=columns)
    options.say(describer.report(described), described)
