"""The command `export`: writes a student in the formats of other projects."""

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Exported, Result
from densecli.train.export_config import ExportConfig


@command(ExportConfig, results=(Result(fields=Exported, more="The rest of the model card."),))
def export(options: Options) -> None:
    """Write a student in the format of another project, F-ViT to transformers, with a model card.

    \b
    densecli export runs/densevlm-eva02-b16-coco-512 --layout eva
    """
    from densecli.train.export import export as write

    config = options.with_run("checkpoint").make(ExportConfig)
    card = write(config)
    done = "would be written" if config.dry_run else "written"
    random = " (random weights)" if card["random_weights"] else ""
    options.say(
        f"{card['path']}: {card['bytes'] / 1e6:.1f} MB {done}, {card['student']}{random} to be read in mode "
        f"{card['mode']}.\n{card['load']}",
        card,
    )
