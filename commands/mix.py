"""The command `mix`: labels of several P-VLMs as one column."""

from densecli.commands.build_shards import summary_text
from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Build, Result
from densecli.pipeline.mix_config import MixConfig


@command(MixConfig, results=(Result(fields=Build),))
def mix(options: Options) -> None:
    """Mix the labels of several P-VLMs into a new column, on a CPU and without the teachers.

    densecli info shows the share of regions for which they agree; densecli verify --against shows where.

    \b
    densecli mix --store stores/coco-512 --teacher-mix vitl14=0.7,siglip-b16=0.3
    densecli train --store stores/coco-512 --method densevlm --teacher mix-average-siglip-b16-vitl14
    """
    from densecli.pipeline.mix import mix_labels

    summary = mix_labels(options.make(MixConfig, store=options.store))
    options.say(summary_text(summary), summary)
