"""The command `export`: writes a student in the formats of other projects."""

from typing import Annotated, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.train.export_config import ExportConfig


class Exported(TypedDict):
    """An exported student: its model card, and where it is."""

    path: Annotated[str, "The file."]
    bytes: Annotated[int, "Its bytes."]
    tensors: Annotated[int, "Its tensors."]
    layout: Annotated[str, "Its format."]
    load: Annotated[str, "Python code that loads it."]
    student: Annotated[str, "Architecture."]
    mode: Annotated[str, "How the last block must be read out."]
    image_size: Annotated[int, "Side of the canvas in pixels."]
    random_weights: Annotated[bool, "Whether weights began as random ones."]
    sha256: Annotated[str, "Digest of the file."]


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
