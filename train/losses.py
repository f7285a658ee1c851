"""Loss functions: pure functions of tensors."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.train.config import Reduction, TrainConfig

# Which classes each group of regions is compared with, as the weight of the *other* group's classes:
# variant -> (weight of stuff classes for thing regions, weight of thing classes for stuff regions).
# In the order of the rows of DenseVLM's table 2, as in `train.config.DECOUPLING_ROWS`.
DECOUPLING: dict[str, tuple[float, float]] = {
    "none": (1.0, 1.0),  # Thing regions: all classes, stuff regions: all classes
    "full": (0.0, 0.0),  # Thing regions: things alone, stuff regions: stuff alone
    "stuff-only": (1.0, 0.0),  # Thing regions: all classes, stuff regions: stuff alone
    "densevlm": (0.0, 1.0),  # Thing regions: things alone, stuff regions: all classes
}

UNLABELLED = -100
"""The label of a region that has none."""


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
    """Changes the temperature of a distribution, from softmax(z / stored_tau) to softmax(z / tau).

    This is exact for a full distribution. With tail mass, only the tail mass is approximate: its classes
    count as equally probable.

    Args:
        probs: (R, D), or (R, D + 2) with the tail mass of things and of stuff, as in a store.
        stored_tau: Its temperature.
        tau: The new temperature.
        thing: (D,) bool, which classes are things.

    Returns:
        The distribution, with the shape of `probs`.
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


def kept_regions(teacher: Tensor, theta: float | Tensor) -> Tensor:
    """(R,) bool: regions whose most probable class is above theta.

    Args:
        teacher: See `decoupled_kl`.
        theta: One for all classes, or one for each, as many as the columns of `teacher`.
    """
    confidence, best = teacher.max(dim=-1)
    return confidence > (theta[best] if isinstance(theta, Tensor) else theta)


def mean(values: Tensor, count: Tensor | None = None) -> Tensor:
    """The mean of values, or 0 without values.

    Args:
        values: Any shape.
        count: Number of values in the whole step, if `values` are a part of it. The result is then their
            share of the step's mean.
    """
    return values.sum() / (max(values.numel(), 1) if count is None else count.clamp(min=1))


def group_counts(teacher: Tensor, thing: Tensor, theta: float | Tensor) -> Tensor:
    """(2,) int64: numbers of kept thing and stuff regions; for the arguments see `decoupled_kl`."""
    kept, is_thing = kept_regions(teacher, theta), _sides(thing, teacher)[teacher.argmax(dim=-1)]
    return torch.stack([(kept & is_thing).sum(), (kept & ~is_thing).sum()])


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    thing: Tensor,
    *,
    tau: float = TrainConfig.tau,
    theta: float | Tensor = TrainConfig.theta,
    variant: str = TrainConfig.decoupling,
    beta: float | None = None,
    reduction: Reduction = TrainConfig.reduction,
    counts: Tensor | None = None,
    class_weights: Tensor | None = None,
) -> Tensor:
    """Decoupled distillation: KL(teacher || student) over categories (DenseVLM, eqs 3-5).

    The most probable class makes a kept region a thing or a stuff region. Each group is compared over the
    classes that DECOUPLING names for the variant; teacher and student are both renormalised over them.

    Args:
        student: (R, D) cosines of the student's regions with its own text embeddings.
        teacher: (R, D) distribution over the D categories (`teacher_probs`), or (R, D + 2) as in a store: the
            named classes, 0 for the others, and the tail mass of other things and of other stuff. Each tail
            is compared as one class.
        thing: (D,) bool, which classes are things.
        tau: The student's temperature.
        theta: Regions whose best class is not above this probability are dropped; see `kept_regions`.
        variant: Key of DECOUPLING.
        beta: Weight in [0, 1] of the stuff classes for thing regions, for teacher and student (an offset of
            log beta on their logits). Overrides the variant's own weight: with `densevlm`, 0 is `densevlm`
            itself and 1 is `none`.
        reduction: `regions` is the mean over kept regions (the paper), `groups` the sum of the two groups'
            means (the released code).
        counts: `group_counts` of the whole step, if these regions are a part of it. The result is then their
            share of the step's loss.
        class_weights: (D, D), or (D + 2, D + 2) as `groups.with_tails` gives it if the teacher has tails: the
            weight of each class for the regions of each. Replaces the variant and beta.

    Returns:
        A float32 scalar. Without kept regions it is 0, with gradient 0.
    """
    logits, probs = student.float() / tau, teacher.float()
    if probs.shape[1] > logits.shape[1]:
        logits = merge_tail(logits, probs, thing)
        thing = _sides(thing, probs)
    # Regions are masked, not selected: how many are kept is not known before the GPU has counted them.
    best = probs.argmax(dim=-1)
    kept, is_thing = kept_regions(teacher, theta), thing[best]
    if class_weights is None:
        (_, stuff_weight), (thing_weight, _) = side_weights(variant, beta)
        for_thing = thing + stuff_weight * ~thing
        for_stuff = thing_weight * thing + ~thing
        weight = torch.where(is_thing[:, None], for_thing, for_stuff)
    else:
        weight = class_weights[best]

    probs = probs * weight
    probs = probs / probs.sum(dim=-1, keepdim=True)
    # An excluded class has log-probability -inf and probability 0: without the fill, 0 * inf gives NaN.
    log_q = (logits + weight.log()).log_softmax(dim=-1).masked_fill(weight == 0, 0.0)
    kl = (torch.xlogy(probs, probs) - probs * log_q).sum(dim=-1)

    if counts is None:
        counts = torch.stack([(kept & is_thing).sum(), (kept & ~is_thing).sum()])
    if reduction == "regions":
        return mean(kl.masked_fill(~kept, 0), counts.sum())
    things, stuff = counts
    of_things, of_stuff = (kl.masked_fill(~(kept & group), 0) for group in (is_thing, ~is_thing))
    return mean(of_things, things) + mean(of_stuff, stuff)


def side_weights(variant: str, beta: float | None = None) -> tuple[tuple[float, float], tuple[float, float]]:
    """Weights of things and stuff for thing regions, and for stuff regions; see `decoupled_kl`."""
    stuff_weight, thing_weight = DECOUPLING[variant]
    return (1.0, stuff_weight if beta is None else beta), (thing_weight, 1.0)


def _sides(thing: Tensor, teacher: Tensor) -> Tensor:
    """Whether each column of `teacher` belongs to things, including its two tails if it has them."""
    return torch.cat([thing, thing.new_tensor([True, False])])[: teacher.shape[1]]


def merge_tail(logits: Tensor, teacher: Tensor, thing: Tensor) -> Tensor:
    """Merges the classes that a teacher does not name into the two tails.

    Args:
        logits: (R, D) over classes.
        teacher: (R, D + 2) distribution with tail mass.
        thing: (D,) bool, which classes are things.

    Returns:
        (R, D + 2) logits. Their softmax gives each tail the total probability of its classes.
    """
    unnamed = teacher[:, :-2] == 0
    # Not -inf: logsumexp has no gradient if all values are -inf.
    tails = [logits.masked_fill(~(unnamed & side), -1e9).logsumexp(dim=1) for side in (thing, ~thing)]
    return torch.cat([logits.masked_fill(unnamed, -1e9), torch.stack(tails, dim=1)], dim=1)


def region_cosine(student: Tensor, teacher: Tensor, count: Tensor | None = None) -> Tensor:
    """1 - mean cosine between regions and the [CLS] embeddings of their crops (CLIPSelf, eq. 1).

    This is also DeCLIP's content loss.

    Args:
        student: (R, C) regions, of any norm.
        teacher: (R, C) embeddings of crops, of any norm.
        count: Number of regions of the whole step; see `mean`.

    Returns:
        A scalar, 0 without regions.
    """
    return mean(1 - F.cosine_similarity(student, teacher, dim=-1), count)


def region_text(
    student: Tensor, labels: Tensor, tau: float = TrainConfig.tau, count: Tensor | None = None
) -> Tensor:
    """Cross entropy between softmax(cos / tau) over categories and pseudo labels (RegionText).

    Args:
        student: (R, D) cosines of regions with the text embeddings of D categories.
        labels: (R,) int64; UNLABELLED for a region that does not count.
        tau: Temperature.
        count: Number of labelled regions of the whole step; see `mean`.

    Returns:
        A scalar, the mean over labelled regions; 0 without regions.
    """
    each = F.cross_entropy(student.float() / tau, labels, reduction="none", ignore_index=UNLABELLED)
    return mean(each, (labels != UNLABELLED).sum() if count is None else count)


def region_text_bce(
    student: Tensor, labels: Tensor, sampled: Tensor, tau: float, count: Tensor | None = None
) -> Tensor:
    """Binary cross entropy of cos / tau with pseudo labels (the released code of RegionText).

    Args:
        student: (R, D) cosines of regions with the text embeddings of D categories.
        labels: (R,) int64; UNLABELLED for a region that does not count.
        sampled: (R, D) bool, the categories that count for each region; its label is among them.
        tau: Temperature.
        count: Number of labelled regions of the whole step; see `mean`.

    Returns:
        A scalar, the sum over categories and mean over labelled regions; 0 without regions.
    """
    labelled = labels != UNLABELLED
    target = torch.zeros_like(student, dtype=torch.float32)
    target = target.scatter(1, (labels * labelled)[:, None], 1.0)
    each = F.binary_cross_entropy_with_logits(student.float() / tau, target, reduction="none")
    return mean(
        (each * sampled).sum(dim=-1).masked_fill(~labelled, 0), labelled.sum() if count is None else count
    )


def token_infonce(student: Tensor, teacher: Tensor, tau: float, count: Tensor | None = None) -> Tensor:
    """InfoNCE between the tokens of each crop, mean over tokens (R-SC's Refiner).

    The positive of a token is the teacher's token at the same place, its negatives are the teacher's tokens
    at the other places of the crop.

    Args:
        student: (R, L, D) tokens of R crops, unit norm.
        teacher: The same for the teacher, without gradient.
        tau: Temperature.
        count: Number of tokens of the whole step; see `mean`.

    Returns:
        A scalar, 0 without crops.
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
