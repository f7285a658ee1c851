"""The command `adopt`: shared columns for a store of the same photos."""

from densecli.commands.build_shards import summary_text
from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Build, Result
from densecli.pipeline.share_config import AdoptConfig


@command(AdoptConfig, results=(Result(fields=Build),))
def adopt(options: Options) -> None:
    """Add shared columns to a store of the same photos, so that no teacher has to run.

    Every photo is compared with the digest of the photo that the teacher saw; others are refused. The store
    may be cut into other shards, or hold a part of the photos.

    \b
    densecli build-shards --dataset coco --store stores/mine
    densecli adopt shared/coco-vitl14 --store stores/mine
    densecli train --store stores/mine
    """
    from densecli.pipeline.adopt import adopt as add

    summary = add(options.make(AdoptConfig, store=options.store))
    options.say(summary_text(summary), summary)
