"""Weight interpolation: alpha x trained + (1 - alpha) x initial weights of a student."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from densecli.core.errors import DenseCLIError
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.models.model_card import run_export
from densecli.models.student import Student, load_student


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A loaded model to measure.

    Attributes:
        title: Its name in tables.
        model: The model, in eval mode.
        weights: Where its weights are from.
        random_weights: Whether the weights, or those of a teacher behind them, began as random ones.
        alpha: Share of the trained weights; None for a model as it was exported.
    """

    title: str
    model: Student
    weights: str
    random_weights: bool
    alpha: float | None = None

    @property
    def heading(self) -> str:
        """The title, with a warning if weights were random."""
        return f"{self.title} (random weights)" if self.random_weights else self.title


def candidates(
    under_test: ModelUnderTest, before: ModelUnderTest | None, alphas: Sequence[float], device: torch.device
) -> Iterator[Candidate]:
    """Yields the model as it is, or with its weights interpolated at each alpha.

    An export with alpha a holds initial + a (trained - initial). Together with the initial weights this fixes
    the line, so any other alpha follows. All candidates share one network: use each before the next.

    Args:
        under_test: The model.
        before: The same student before training; needed for `alphas`.
        alphas: Shares of the trained weights. If empty, the model is yielded as it is.
        device: That the model is loaded to.

    Raises:
        DenseCLIError: The model is not the student of a run, or its initial weights are not found.
    """
    model, info = under_test.load_student(device)
    if not alphas:
        yield Candidate(title=under_test.title, model=model, weights=info.source, random_weights=info.random)
        return
    if before is None or under_test.weights is None:
        raise DenseCLIError(
            "Weights can only be averaged for the student of a run.",
            hint="Name the run with --run.",
        )
    card = run_export(Path(under_test.weights).parents[1])[1]
    before_model, before_info = load_student(before.model, before.weights, device)
    if before_info.sha256 != card["initial_weights"].get("sha256"):
        raise DenseCLIError(
            f"{before_info.source} does not hold the initial weights of the run.",
            hint=f"Say where they are: --weights {before.model}=PATH.",
        )
    if not card.get("alpha"):
        raise DenseCLIError(
            "The run exported its initial weights (alpha 0).", hint="Train with --alpha above 0."
        )
    initial = before_model.network.state_dict()
    exported = {name: tensor.clone() for name, tensor in model.network.state_dict().items()}
    for alpha in alphas:
        weight = alpha / card["alpha"]
        model.network.load_state_dict(
            {
                name: torch.lerp(initial[name], tensor, weight) if tensor.is_floating_point() else tensor
                for name, tensor in exported.items()
            }
        )
        yield Candidate(
            title=f"alpha {alpha:g}",
            model=model,
            weights=info.source,
            random_weights=info.random,
            alpha=alpha,
        )
