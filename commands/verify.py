"""The command `verify`: runs the teachers again on some photos and compares."""

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.pipeline.verify_config import VerifyConfig


@command(VerifyConfig)
def verify(options: Options) -> int:
    """Run the teachers again on some photos and compare with what is stored.

    Exits with 1 where an error is larger than its receipt says by more than --tolerance. Weights other than
    the column's own are refused.

    \b
    densecli verify stores/coco-512 --samples 32
    """
    from densecli.pipeline.verify import report
    from densecli.pipeline.verify import verify as run_again

    verified = run_again(options.make(VerifyConfig, store=options.store))
    options.say(report(verified), verified)
    return 0 if verified["verified"] else 1
