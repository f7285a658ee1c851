"""Students between what they were and what they became: alpha x trained + (1 - alpha) x initial weights."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from densecli.core.errors import DenseCLIError
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.region_counts import began_random
from densecli.models.student import Student, load_student


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model under test. weights: where they are from, with `random:SEED` if that is where they began."""

    title: str
    model: Student
    weights: str
    alpha: float | None = None

    @property
    def random_weights(self) -> bool:
        return began_random(self.weights)

    @property
    def heading(self) -> str:
        return f"{self.title} (random weights)" if self.random_weights else self.title


def candidates(
    subject: ModelUnderTest, before: ModelUnderTest | None, alphas: Sequence[float], device: torch.device
) -> Iterator[Candidate]:
    """The subject as it is, or at every alpha between `before` and it, one after another in the same memory.

    An export of alpha a is initial + a (trained - initial), which two points fix: any other alpha lies on the
    same line. Raises DenseCLIError where the subject is no run's, or its initial weights are gone.
    """
    model, info = load_student(subject.model, subject.weights, device)
    source = subject.began(info.source)
    if not alphas:
        yield Candidate(title=subject.title, model=model, weights=source)
        return
    if before is None or subject.weights is None:
        raise DenseCLIError(
            "Only a run's student has weights to average with those it began with.",
            hint="Name the run with --run.",
        )
    card = json.loads(Path(subject.weights).with_name("card.json").read_bytes())
    began, about = load_student(before.model, before.weights, device)
    if about.sha256 != card["initial_weights"]["sha256"]:
        raise DenseCLIError(
            f"{about.source} does not hold the weights that the run began with.",
            hint=f"Say where they are: --weights {before.model}=PATH.",
        )
    if not card["alpha"]:
        raise DenseCLIError(
            "The run exported its initial weights (alpha 0).", hint="Train with --alpha above 0."
        )
    initial = began.network.state_dict()
    exported = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    for alpha in alphas:
        weight = alpha / card["alpha"]
        model.network.load_state_dict(
            {
                name: torch.lerp(initial[name], tensor, weight) if tensor.is_floating_point() else tensor
                for name, tensor in exported.items()
            }
        )
        yield Candidate(title=f"alpha {alpha:g}", model=model, weights=source, alpha=alpha)
