"""Heads: modules that loss terms train beside a student and that are dropped after the training."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from densecli.models.student import Student

STUDENT = "student."
"""Prefix of the student's tensors in the state dict of `StudentWithHeads`."""


class StudentWithHeads(nn.Module):
    """A student and the heads of its loss terms in one forward pass, so that processes share gradients."""

    def __init__(self, student: Student, heads: Mapping[str, nn.Module]) -> None:
        """Takes both.

        Args:
            student: The student.
            heads: Heads by loss; see `Term.head`.
        """
        super().__init__()
        self.student = student
        self.heads = nn.ModuleDict(heads)

    def forward(self, images: Tensor, mode: str, **outputs: bool) -> tuple[Any, ...]:
        """Runs the student, then the heads on its dense map.

        Args:
            images: (B, 3, H, W) normalised pixels.
            mode: The student's read-out mode.
            outputs: Of the student: `context`, and `image` for a CLIP; see `DenseCLIP.forward`.

        Returns:
            What the student returns, with its dense map (B, C, h, w) first, and the heads' maps by loss.
        """
        found = self.student(images, mode, **outputs)
        return *found, {loss: head(found[0]) for loss, head in self.heads.items()}


class MapProjection(nn.Module):
    """A linear layer for the tokens of a map, without a bias.

    Pooling a box is linear too: it gives the same before and after this layer.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        """Makes the layer, with random weights from torch's current generator."""
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, dense: Tensor) -> Tensor:
        """Maps (B, inputs, h, w) to (B, outputs, h, w)."""
        found: Tensor = self.linear(dense.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return found


def student_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The student's part of a checkpoint's state dict, whether or not there are heads beside it."""
    if not any(name.startswith(STUDENT) for name in state):
        return dict(state)
    return {name.removeprefix(STUDENT): t for name, t in state.items() if name.startswith(STUDENT)}
