"""Exports the best checkpoint of a finished run."""

from dataclasses import asdict
from typing import Any

from torch import nn

from densecli.train.checkpoints import checkpoint_path, copied, load_checkpoint
from densecli.train.recipe import Recipe
from densecli.train.run_folder import RunFolder
from densecli.train.watch import Best


def export_best(
    recipe: Recipe[Any], model: nn.Module, folder: RunFolder, best: Best, resolved: dict[str, Any]
) -> str:
    """Writes the weights of the best checkpoint; the model is afterwards as before.

    Args:
        recipe: What was trained.
        model: Its model.
        folder: The folder of the run.
        best: Which checkpoint it is.
        resolved: See `Recipe.export`.

    Returns:
        Path of the weights.

    Raises:
        DenseCLIError: The checkpoint is damaged or gone.
    """
    last = copied(model.state_dict())
    model.load_state_dict(load_checkpoint(checkpoint_path(folder.checkpoints, best.step))["model"])
    try:
        return recipe.export(folder.export_best, resolved, best=asdict(best))
    finally:
        model.load_state_dict(last)
