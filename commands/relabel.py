"""The command `relabel`: labels from stored features or crops, without the teacher."""

from densecli.commands.build_shards import summary_text
from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Build, Result
from densecli.pipeline.relabel_config import RelabelConfig


@command(RelabelConfig, results=(Result(fields=Build),))
def relabel(options: Options) -> None:
    """Make labels for other categories, prompts or boxes from a column of features, on a CPU and without the
    teacher. From a column of crops it makes labels for those crops.

    \b
    densecli relabel stores/coco-512 --categories 133
    densecli relabel --store stores/coco-512 --teacher crops-vitl14
    """
    from densecli.pipeline.relabel import relabel as retrieve

    summary = retrieve(options.make(RelabelConfig, store=options.store))
    options.say(summary_text(summary), summary)
