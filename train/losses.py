"""Loss functions: pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.train.config import Reduction, TrainConfig

# Which classes each group of regions contrasts with, as the weight of the *other* group's classes:
# variant -> (weight of stuff classes for thing regions, weight of thing classes for stuff regions).
# In the order of the rows of DenseVLM's table 2, as in `train.config.DECOUPLING_ROWS`.
DECOUPLING: dict[str, tuple[float, float]] = {
    "none": (1.0, 1.0),  # Thing regions: all classes, stuff regions: all classes
    "full": (0.0, 0.0),  # Thing regions: things alone, stuff regions: stuff alone
    "stuff-only": (1.0, 0.0),  # Thing regions: all classes, stuff regions: stuff alone
    "densevlm": (0.0, 1.0),  # Thing regions: things alone, stuff regions: all classes
}


def teacher_probs(cosines: Tensor, tau: float = TrainConfig.tau) -> Tensor:
    """The distribution softmax(cos / tau) over categories that a teacher retrieves (DenseVLM, eq. 2).

    Args:
        cosines: (R, D) between the embeddings of R regions and of D category texts.
        tau: Temperature.

    Returns:
        (R, D) float32; rows sum to 1.
    """
    return (cosines.float() / tau).softmax(dim=-1)


def retemper(probs: Tensor, stored_tau: float, tau: float, thing: Tensor) -> Tensor:
    """Changes the temperature of a distribution: from softmax(z / stored_tau) to softmax(z / tau).

    Exact for a full distribution. Of one with tail mass only the tail mass is approximate: the classes in it
    count as equally probable.

    Args:
        probs: (R, D), or (R, D + 2) with the tail mass of things and of stuff, as a store has it.
        stored_tau: Its temperature.
        tau: The temperature that is wanted.
        thing: (D,) bool, which classes are things.

    Returns:
        The distribution, of the shape of `probs`.
    """
    if tau == stored_tau:
        return probs
    power = stored_tau / tau
    named, others = probs.tensor_split([len(thing)], dim=1)
    powered = named**power
    if others.shape[1]:
        sizes = torch.stack([((named == 0) & side).sum(dim=1) for side in (thing, ~thing)], dim=1).clamp(
            min=1
        )
        powered = torch.cat([powered, sizes * (others / sizes) ** power], dim=1)
    return powered / powered.sum(dim=-1, keepdim=True)


def kept_regions(teacher: Tensor, theta: float) -> Tensor:
    """(R,) bool: regions whose most probable class has more than theta; for `teacher` see `decoupled_kl`."""
    return teacher.amax(dim=-1) > theta


def mean(values: Tensor, count: Tensor | None = None) -> Tensor:
    """The mean of values, 0 without any.

    Args:
        values: Any shape.
        count: Number of values of the whole step, where these are a part of them: the result is then their
            share of the mean.
    """
    return values.sum() / (max(values.numel(), 1) if count is None else count.clamp(min=1))


def group_counts(teacher: Tensor, thing: Tensor, theta: float) -> Tensor:
    """(2,) int64: numbers of kept thing and stuff regions; for the arguments see `decoupled_kl`."""
    is_thing = _sides(thing, teacher)[teacher[kept_regions(teacher, theta)].argmax(dim=-1)]
    return torch.stack([is_thing.sum(), (~is_thing).sum()])


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    thing: Tensor,
    *,
    tau: float = TrainConfig.tau,
    theta: float = TrainConfig.theta,
    variant: str = TrainConfig.decoupling,
    beta: float | None = None,
    reduction: Reduction = TrainConfig.reduction,
    counts: Tensor | None = None,
) -> Tensor:
    """Decoupled distillation: KL(teacher || student) over categories (DenseVLM, eqs 3-5).

    A kept region is a thing or a stuff region by its most probable class. Each group contrasts with the
    classes that its variant of DECOUPLING names; teacher and student are both renormalised over them.

    Args:
        student: (R, D) cosines of the student's regions with its own text embeddings.
        teacher: (R, D) distribution over the D categories (`teacher_probs`), or (R, D + 2) as a store has it:
            the named classes, 0 for the others, and the tail mass of the other things and of other stuff. The
            two tails are compared as one class each.
        thing: (D,) bool, which classes are things.
        tau: The student's temperature.
        theta: Regions whose best class is not more probable are dropped.
        variant: Key of DECOUPLING.
        beta: Weight in [0, 1] of the stuff classes for thing regions on both sides, i.e. an offset of log
            beta on their logits, in place of the variant's own (with `densevlm`: 0 is `densevlm` itself, 1 is
            `none`).
        reduction: `regions`: the mean over kept regions (the paper). `groups`: the sum of the two groups'
            means (the released code).
        counts: `group_counts` of the whole step, where these regions are a part of it: the result is then
            their share of its loss.

    Returns:
        A float32 scalar. Without a kept region it is 0, with gradient 0.
    """
    kept = kept_regions(teacher, theta)
    logits, probs = student[kept].float() / tau, teacher[kept].float()
    if probs.shape[1] > logits.shape[1]:
        logits = merge_tail(logits, probs, thing)
        thing = _sides(thing, probs)
    is_thing = thing[probs.argmax(dim=-1)]

    stuff_weight, thing_weight = DECOUPLING[variant]
    stuff_weight = stuff_weight if beta is None else beta
    for_thing = torch.where(thing, 1.0, stuff_weight)
    for_stuff = torch.where(thing, thing_weight, 1.0)
    weight = torch.where(is_thing[:, None], for_thing, for_stuff)

    probs = probs * weight
    probs = probs / probs.sum(dim=-1, keepdim=True)
    # An excluded class has log-probability -inf and probability 0: fill, or 0 * inf poisons the sum.
    log_q = (logits + weight.log()).log_softmax(dim=-1).masked_fill(weight == 0, 0.0)
    kl = (torch.xlogy(probs, probs) - probs * log_q).sum(dim=-1)

    if reduction == "regions":
        return mean(kl, None if counts is None else counts.sum())
    things, stuff = (None, None) if counts is None else counts
    return mean(kl[is_thing], things) + mean(kl[~is_thing], stuff)


def _sides(thing: Tensor, teacher: Tensor) -> Tensor:
    """Whether each column of `teacher` belongs to things, including the two tails where it has them."""
    return torch.cat([thing, thing.new_tensor([True, False])])[: teacher.shape[1]]


def merge_tail(logits: Tensor, teacher: Tensor, thing: Tensor) -> Tensor:
    """Merges the classes that a teacher does not name into the two tails.

    Args:
        logits: (R, D) of classes.
        teacher: (R, D + 2) distribution with tail mass.
        thing: (D,) bool, which classes are things.

    Returns:
        (R, D + 2) logits. Their softmax gives each tail the sum of what it gave the classes in it.
    """
    unnamed = teacher[:, :-2] == 0
    # Not -inf: a logsumexp over nothing else has no gradient.
    tails = [logits.masked_fill(~(unnamed & side), -1e9).logsumexp(dim=1) for side in (thing, ~thing)]
    return torch.cat([logits.masked_fill(unnamed, -1e9), torch.stack(tails, dim=1)], dim=1)


def region_cosine(student: Tensor, teacher: Tensor, count: Tensor | None = None) -> Tensor:
    """1 - mean cosine between a region and the [CLS] embedding of its crop (CLIPSelf, eq. 1).

    It is DeCLIP's content loss too.

    Args:
        student: (R, C) regions, of any norm.
        teacher: (R, C) embeddings of crops, of any norm.
        count: Regions of the whole step, see `mean`.

    Returns:
        A scalar, 0 without a region.
    """
    return mean(1 - F.cosine_similarity(student, teacher, dim=-1), count)


def region_text(
    student: Tensor, labels: Tensor, tau: float = TrainConfig.tau, count: Tensor | None = None
) -> Tensor:
    """Cross entropy between softmax(cos / tau) over categories and pseudo labels (RegionText).

    Args:
        student: (R, D) cosines of regions with the text embeddings of D categories.
        labels: (R,) int64.
        tau: Temperature.
        count: Regions of the whole step, see `mean`.

    Returns:
        The mean over regions, a scalar; 0 without a region.
    """
    return mean(F.cross_entropy(student.float() / tau, labels, reduction="none"), count)


def token_infonce(student: Tensor, teacher: Tensor, tau: float, count: Tensor | None = None) -> Tensor:
    """InfoNCE between the tokens of each crop, mean over tokens (R-SC's Refiner).

    A token's positive is the teacher's token at its place, its negatives are the teacher's at the other
    places of the crop.

    Args:
        student: (R, L, D) tokens of R crops, unit norm.
        teacher: The same of the teacher; it gets no gradient.
        tau: Temperature.
        count: Tokens of the whole step, see `mean`.

    Returns:
        A scalar, 0 without a crop.
    """
    logits = student.float() @ teacher.detach().float().mT / tau
    places = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return mean(F.cross_entropy(logits.flatten(0, 1), places.flatten(), reduction="none"), count)


def token_cosine(student: Tensor, teacher: Tensor, count: Tensor | None = None) -> Tensor:
    """1 - cosine of corresponding tokens, mean over tokens (R-SC, eq. 14 plus one).

    Args:
        student: (R, L, D) tokens of R crops, unit norm.
        teacher: The same of the teacher; it gets no gradient.
        count: Tokens of the whole step, see `mean`.

    Returns:
        A scalar, 0 without a crop.
    """
    return mean(1 - (student.float() * teacher.detach().float()).sum(dim=-1), count)
