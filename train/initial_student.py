"""The student before the first step: by name, from a weights file, or from the export of another run."""

from dataclasses import replace
from pathlib import Path

import torch

from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import WeightsInfo
from densecli.models.model_card import run_export
from densecli.models.student import Student, load_student
from densecli.models.vfms import architecture_of
from densecli.train.config import TrainConfig


def initial_student(
    config: TrainConfig, device: str | torch.device = "cpu"
) -> tuple[Student, WeightsInfo, str | None]:
    """Loads the student that a training starts from.

    Args:
        config: The configuration.
        device: The device of the student.

    Returns:
        The student in eval mode; the source of its weights, which are random if the run that trained them
        began with random ones; and the mode in which `config.init` read it out, None without `init`.

    Raises:
        DenseCLIError: `config.init` has no exported student, is of another architecture or is the run
            itself; or see `load_student`.
    """
    if config.init is None:
        return *load_student(config.student, config.weights, device), None
    if Path(config.init).resolve() == Path(config.run).resolve():
        raise DenseCLIError(
            f"The run {config.run} cannot start from its own student.", hint="Give another folder as --run."
        )
    weights, card = run_export(config.init)
    trained, wanted = card["student"], architecture_of(config.student).name
    if architecture_of(trained).name != wanted:
        raise DenseCLIError(
            f"The run {config.init} trained a {trained}, and this one trains a {config.student}.",
            hint=f"Give --student {trained}, or --init with a run of a {config.student}.",
        )
    model, info = load_student(config.student, str(weights), device)
    return model, replace(info, random=info.random or card["random_weights"]), card["mode"]
