"""The base class of loss terms, and what they are built from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self, get_type_hints

import torch
from torch import Tensor, nn

from densecli.core.errors import DenseCLIError
from densecli.core.registry import unknown_name

if TYPE_CHECKING:
    from densecli.shards.store import Column
    from densecli.train.batch import Batch
    from densecli.train.config import TrainConfig

EMPTY: Mapping[str, Tensor] = MappingProxyType({})
Values = tuple[Tensor, dict[str, Tensor]]
"""A scalar, and other scalars to log, by name."""


class StudentOutput(NamedTuple):
    """The output of the student for a batch of B images with R regions.

    Attributes:
        dense: (B, C, h, w) in the student's read-out mode.
        regions: (R, C) float32, pooled from `dense`, unit norm.
        context: Context features of the mode by name, (B, C', h, w) each; empty if it has none.
        head: The term's own head on `dense`, (B, C'', h, w); None if it has none.
        image: (B, C) image embeddings of unit norm, if a term reads them.
    """

    dense: Tensor
    regions: Tensor
    context: dict[str, Tensor]
    head: Tensor | None = None
    image: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class TermSetup:
    """Everything that a term is built from.

    Attributes:
        kind: Kind of target to read; its values are in `batch.targets[kind]`.
        column: The target column.
        config: Configuration of the training.
        text: Computes the student's own text embeddings of the categories of a labels column, (D, C) unit
            norm. Raises DenseCLIError for a student without a text tower.
        width: C, the numbers of a token of the student's dense map.
        options: An instance of the term's `Options`, None if it has none.
    """

    kind: str
    column: Column
    config: TrainConfig
    text: Callable[[Column], Tensor]
    width: int = 0
    options: Any = None


class Term(ABC):
    """A loss term.

    Attributes:
        reads: Kinds of target that it can learn from; the first one is the default.
        Options: A dataclass of the term's own options, with fields of type int, float, bool or str that have
            defaults. `--loss-option TERM.NAME=VALUE` sets them. None if the term has no options.
        head: A module that is trained with the student and then dropped. It makes a map (B, C', h, w) of the
            student's dense map (B, C, h, w), which the term finds in `StudentOutput.head`.
        reads_image: Whether it reads `StudentOutput.image`. Only a CLIP has one.
        theta: Regions count whose best category is above this probability; None if all do.
        agreement: Name of what `agrees` measures on held-out photos, such as `cosine`; the larger the better.
            Empty if the loss alone tells how far the student agrees.
        files: sha256 of each file that its options name, by option; a run is not continued with another
            content.
        notes: Sentences to the user about what the term chose, shown once when the training begins.
    """

    reads: ClassVar[tuple[str, ...]]
    Options: ClassVar[type | None] = None
    reads_image: ClassVar[bool] = False
    head: nn.Module | None = None
    theta: float | None = None
    agreement: ClassVar[str] = ""
    files: Mapping[str, str] = MappingProxyType({})
    notes: Sequence[str] = ()

    @classmethod
    @abstractmethod
    def build(cls, setup: TermSetup) -> Self:
        """Builds the term for a training."""

    @abstractmethod
    def counts(self, batch: Batch) -> Tensor:
        """Counts what the term averages over: regions, boxes, images.

        Returns:
            (G,) int64, a count for each mean in the loss.
        """

    def learns_from(self, counts: Tensor) -> Tensor:
        """Tells how many regions, boxes or images the term learns from, a scalar, given its counts."""
        return counts.sum()

    def outputs_read(self, student: StudentOutput) -> list[Tensor]:
        """Tells which outputs of the student the loss depends on; by default on every one.

        Parameters that no loss depends on are frozen: processes that train together wait for the gradient of
        every other one.
        """
        others = [each for each in (student.head, student.image) if each is not None]
        return [student.dense, *student.context.values(), *others]

    def agrees(self, student: StudentOutput, batch: Batch) -> Tensor:
        """Tells how far the student agrees with its teacher; only for a term with an `agreement`.

        Args:
            student: The student's output for `batch`.
            batch: The batch.

        Returns:
            (2,) the sum over regions, boxes or images, and their number.
        """
        raise NotImplementedError

    @abstractmethod
    def __call__(self, student: StudentOutput, batch: Batch, counts: Tensor) -> Values:
        """Computes the batch's share of the loss.

        A step may have several batches, in several processes. Divide sums by `counts`, so that the shares of
        all batches add up to the loss of one large batch.

        Args:
            student: The student's output for `batch`.
            batch: The batch.
            counts: (G,), the sum of `counts` over all batches of the step.

        Returns:
            The batch's share of the loss before its weight, and other scalars to log, by name.
        """


def term_options(name: str, term: type[Term], values: Mapping[str, str]) -> Any:
    """Builds the options of a term.

    Args:
        name: Name of the term.
        term: Its class.
        values: Values from the command line by option.

    Returns:
        An instance of `term.Options`, or None if the term has no options.

    Raises:
        DenseCLIError: An option is unknown, or its value has the wrong type.
    """
    if term.Options is None:
        if values:
            raise DenseCLIError(
                f"The loss term {name} has no options of its own.", hint="Leave --loss-option out."
            )
        return None
    types = get_type_hints(term.Options)
    known = {field.name: types[field.name] for field in fields(term.Options) if field.init}
    parsed = {}
    for option, word in values.items():
        if option not in known:
            raise unknown_name(f"option of the loss term {name}", option, known)
        parsed[option] = _parse(f"{name}.{option}", word, known[option])
    missing = [f.name for f in fields(term.Options) if f.default is MISSING and f.name not in parsed]
    if missing:
        raise DenseCLIError(
            f"The loss term {name} needs the option {missing[0]}.",
            hint=f"Add --loss-option {name}.{missing[0]}=VALUE.",
        )
    return term.Options(**parsed)


def _parse(name: str, word: str, kind: type) -> Any:
    booleans = {"true": True, "false": False}
    try:
        return booleans[word.lower()] if kind is bool else kind(word)
    except (KeyError, ValueError):
        expected = {int: "a whole number", float: "a number", bool: "true or false"}.get(kind, kind.__name__)
        raise DenseCLIError(f"The loss option {name} cannot be {word!r}.", hint=f"Give {expected}.") from None


def rows(tensor: Tensor) -> Tensor:
    """The number of rows of a tensor, (1,) int64 on its device."""
    # Filled on the device: a copy from the CPU would wait for it.
    return torch.full((1,), len(tensor), dtype=torch.int64, device=tensor.device)


def agreeing(cosines: Tensor, teacher: Tensor, kept: Tensor) -> Tensor:
    """In how many regions the student finds the teacher's best category.

    Args:
        cosines: (R, D) of the student's regions with D categories.
        teacher: (R, D) distribution over the categories, or (R, D + 2) with tails, which are no category.
        kept: (R,) bool, which regions count.

    Returns:
        (2,) the number of kept regions where both name the same category, and that of all kept ones.
    """
    same = cosines.argmax(dim=-1) == teacher[:, : cosines.shape[1]].argmax(dim=-1)
    return torch.stack([(same & kept).sum(), kept.sum()])


def weighted_sum(
    terms: Mapping[str, Term],
    weights: Mapping[str, float],
    student: StudentOutput,
    batch: Batch,
    counts: Mapping[str, Tensor],
    heads: Mapping[str, Tensor] = EMPTY,
) -> Values:
    """Sums the terms of a batch.

    Args:
        terms: Terms by loss.
        weights: Weights by loss.
        student: Output of the student for `batch`.
        batch: The batch.
        counts: By loss, the sum of the term's counts over all batches of the step.
        heads: By loss, the map of the term's head.

    Returns:
        The batch's share of the weighted loss; by name, each term before its weight and what else it logs.
    """
    total = student.regions.new_zeros(())
    parts: dict[str, Tensor] = {}
    for name, term in terms.items():
        value, extra = term(student._replace(head=heads.get(name)), batch, counts[name])
        total = total + weights[name] * value
        parts |= {name: value.detach(), **extra}
    return total, parts
