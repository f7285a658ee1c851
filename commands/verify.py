"""The command `verify`: runs the teachers again on some photos and compares."""

from typing import Annotated, Any, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.errors import DenseCLIError
from densecli.pipeline.verify_config import VerifyConfig


class VerifiedColumn(TypedDict):
    """A column compared with its teacher."""

    name: Annotated[str, "Name."]
    id: Annotated[str, "First digits of its key."]
    samples: Annotated[int, "Photos compared."]
    random_weights: Annotated[bool, "Whether the teacher's weights are random."]
    figures: Annotated[
        dict[str, dict[str, float | bool]],
        "Each error: live now, recorded in the receipt, and whether it holds.",
    ]
    precision: Annotated[str, "Precision in which the teacher ran."]
    against_full_precision: Annotated[dict[str, float], "Largest errors from the teacher in fp32."]


class Verified(TypedDict):
    """What is stored, compared with the teachers."""

    store: Annotated[str, "Address of the store."]
    verified: Annotated[bool, "Whether every error is as recorded."]
    tolerance: Annotated[float, "By how much an error may be larger."]
    columns: Annotated[list[VerifiedColumn], "Each column."]


class Compared(TypedDict):
    """The labels of two P-VLMs."""

    store: Annotated[str, "Address of the store."]
    photos: Annotated[int, "Photos compared."]
    regions: Annotated[int, "Regions compared."]
    agreement: Annotated[float | None, "Share of regions with the same category."]
    thing_stuff_agreement: Annotated[float | None, "Share on which they agree whether it is a thing."]
    mean_total_variation: Annotated[float | None, "Mean distance of the probabilities."]
    columns: Annotated[list[dict[str, Any]], "Both: confidence, share of things, seconds and bytes a photo."]
    by_confidence: Annotated[list[dict[str, Any]], "Agreement by the confidence of the first."]
    classes: Annotated[list[dict[str, Any]], "Each category: regions, agreement, what the other calls it."]


@command(
    VerifyConfig,
    results=(
        Result(fields=Verified),
        Result(fields=Compared, when="--against"),
    ),
)
def verify(options: Options) -> int:
    """Run the teachers again on some photos and compare with what is stored.

    Exits with 1 where an error is larger than its receipt says by more than --tolerance. Weights other than
    the column's own are refused.

    With --against the labels of two P-VLMs are compared: agreement by category, confidence and cost.

    \b
    densecli verify stores/coco-512 --samples 32
    densecli verify stores/coco-512 --teacher vitl14 --against siglip-b16 --samples 1000
    """
    from densecli.pipeline.verify import report
    from densecli.pipeline.verify import verify as run_again

    config = options.make(VerifyConfig, store=options.store)
    if config.against:
        from densecli.pipeline import compare_labels

        if len(config.teachers) != 1:
            raise DenseCLIError("--against compares one column with another.", hint="Give one --teacher.")
        found = compare_labels.compare_labels(
            config.store, config.teachers[0], config.against, config.samples
        )
        text = compare_labels.report(found)
        if config.report:
            text += f"\nPage: {compare_labels.write_comparison(found, config.report)}"
        options.say(text, found)
        return 0
    verified = run_again(config)
    options.say(report(verified), verified)
    return 0 if verified["verified"] else 1
