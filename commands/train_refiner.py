"""The command `train-refiner`: trains the Refiner of a CLIP or a VFM."""

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import PlannedTraining, Result, Training
from densecli.commands.train import show_result, trained
from densecli.train.refiner_config import RefinerConfig
from densecli.train.run_config import RESOLVED


@command(
    RefinerConfig,
    resolved=RESOLVED,
    results=(
        Result(fields=Training, more="The value of each part of the loss."),
        Result(fields=PlannedTraining, when="--dry-run"),
    ),
)
def train_refiner(options: Options) -> None:
    """Train the Refiner of a CLIP or a vision foundation model on a store's photos, for the teacher
    refiner-MODEL of the r-sc-* methods. No text is involved.

    \b
    densecli train-refiner --store stores/coco-512 --student eva02-b16
    densecli train-refiner --store stores/coco-512 --student dinov2-vits14
    """
    from densecli.models.refiner_checkpoints import default_run
    from densecli.models.vfms import architecture_of
    from densecli.train.refiner import train_refiner as fit

    values = trained(options)
    run = default_run(architecture_of(values["student"]).name, values["store"])
    show_result(options, fit(options.make(RefinerConfig, **{"run": run, **values})))
