"""The command `verify`: runs the teachers again on some photos and compares."""

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Compared, Result, Verified
from densecli.core.errors import DenseCLIError
from densecli.pipeline.verify_config import VerifyConfig


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
