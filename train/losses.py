"""Loss functions: pure functions of tensors, with no model, no store and no configuration."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Reduction = Literal["regions", "groups"]
REDUCTIONS: tuple[Reduction, ...] = ("regions", "groups")

# Which classes each group of regions contrasts with, as the weight of the *other* group's classes:
# row -> (weight of Stuff classes for Thing regions, weight of Thing classes for Stuff regions).
# The papers' tables name rows 1 and 4; the order of 2 and 3 is ours.
DECOUPLING: dict[int, tuple[float, float]] = {
    1: (1.0, 1.0),  # Thing regions: all classes, Stuff regions: all classes (no decoupling)
    2: (1.0, 0.0),  # Thing regions: all classes, Stuff regions: Stuff only
    3: (0.0, 0.0),  # Thing regions: Thing only,  Stuff regions: Stuff only
    4: (0.0, 1.0),  # Thing regions: Thing only,  Stuff regions: all classes (DenseVLM)
}


def teacher_probs(cosines: Tensor, tau: float = 0.01) -> Tensor:
    """The retrieval distribution softmax(cos / tau) of a live teacher (DenseVLM, eq. 2).

    cosines: (R, D) between region and text embeddings, both unit norm. Returns (R, D) float32, rows sum to 1.
    """
    return (cosines.float() / tau).softmax(dim=-1)


def retemper(probs: Tensor, stored_tau: float, tau: float, thing: Tensor) -> Tensor:
    """A distribution softmax(z / stored_tau) seen at another temperature: softmax(z / tau).

    probs: (R, D), or (R, D + 2) as a store has them; thing: (D,) bool. Exact for a full distribution. The
    classes that a store takes together are taken for equals: their mass alone is approximate.
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
    """(R,) bool: regions whose most probable class has more than theta. teacher: see `decoupled_kl`."""
    return teacher.amax(dim=-1) > theta


def mean(values: Tensor, count: Tensor | None = None) -> Tensor:
    """The mean of `values`, 0 without any; with `count`, what a part adds to the mean of that many values."""
    return values.sum() / (max(values.numel(), 1) if count is None else count.clamp(min=1))


def group_counts(teacher: Tensor, thing: Tensor, theta: float) -> Tensor:
    """(2,) int64: kept regions of the Thing and of the Stuff group. As `decoupled_kl` takes them."""
    is_thing = _sides(thing, teacher)[teacher[kept_regions(teacher, theta)].argmax(dim=-1)]
    return torch.stack([is_thing.sum(), (~is_thing).sum()])


def decoupled_kl(
    student: Tensor,
    teacher: Tensor,
    thing: Tensor,
    *,
    tau: float = 0.01,
    theta: float = 0.3,
    variant: int = 4,
    beta: float | None = None,
    reduction: Reduction = "regions",
    counts: Tensor | None = None,
) -> Tensor:
    """Decoupled distillation of a retrieval: KL(teacher || student) over categories (DenseVLM, eqs 3-5).

    A kept region belongs to the Thing or the Stuff group by its most probable class. Each group contrasts
    with the classes its `row` of DECOUPLING names; teacher and student are both renormalised over them.

    student: (R, D) cosines of the student's regions with its own text embeddings.
    teacher: (R, D) distribution over the D categories (`teacher_probs`), or (R, D + 2) as a store has it: the
    classes it names, 0 for the others, and the mass of the other things and of other stuff. These two are
    compared as one class each: what the store does not tell apart is left out of the divergence.
    thing: (D,) bool. tau: the student's temperature. theta: regions below this confidence are dropped.
    beta: weight in [0, 1] of the Stuff classes for Thing regions on both sides, i.e. an offset of log beta on
    their logits, in place of the row's own (with row 4: 0 is row 4 itself, 1 is row 1).
    reduction: `regions` is the mean over kept regions (the paper); `groups` is the sum of the two groups'
    means (the released code). Without a kept region the loss is 0 and its gradient is 0.
    counts: `group_counts` of the whole batch, where these regions are a part of it; what they add to its loss
    is then returned.

    Returns a float32 scalar.
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
    """Whether each column of `teacher` is a thing's, the remainders' too where it has them."""
    return torch.cat([thing, thing.new_tensor([True, False])])[: teacher.shape[1]]


def merge_tail(logits: Tensor, teacher: Tensor, thing: Tensor) -> Tensor:
    """(R, D) logits of classes -> (R, D + 2), of the classes and remainders of `teacher` (R, D + 2).

    A softmax over them gives a remainder the sum of what it gave the classes that the teacher does not name.
    """
    unnamed = teacher[:, :-2] == 0
    # Not -inf, of which a logsumexp over nothing else has no gradient.
    remainders = [logits.masked_fill(~(unnamed & side), -1e9).logsumexp(dim=1) for side in (thing, ~thing)]
    return torch.cat([logits.masked_fill(unnamed, -1e9), torch.stack(remainders, dim=1)], dim=1)


def region_cosine(student: Tensor, teacher: Tensor, count: Tensor | None = None) -> Tensor:
    """1 - mean cos(region, [CLS] of its crop) (CLIPSelf, eq. 1; DeCLIP's content loss).

    Both (R, C), of any norm. Without a region 0. count: see `mean`. Returns a scalar.
    """
    return mean(1 - F.cosine_similarity(student, teacher, dim=-1), count)


def region_text(student: Tensor, labels: Tensor, tau: float = 0.01, count: Tensor | None = None) -> Tensor:
    """Cross entropy of softmax(cos / tau) over categories and the regions' pseudo labels (RegionText).

    student: (R, D) cosines of regions with the text embeddings of D categories. labels: (R,) int64. Mean over
    regions; without a region 0. count: see `mean`. Returns a scalar.
    """
    return mean(F.cross_entropy(student.float() / tau, labels, reduction="none"), count)


def token_infonce(student: Tensor, teacher: Tensor, tau: float, count: Tensor | None = None) -> Tensor:
    """InfoNCE between the tokens of each crop (R-SC's Refiner): a token's positive is the teacher's token at
    its place, its negatives are the teacher's at the crop's other places.

    Both (R, L, D), unit norm; the teacher's tokens get no gradient. Mean over tokens; without a crop 0.
    count: of tokens, see `mean`. Returns a scalar.
    """
    logits = student.float() @ teacher.detach().float().mT / tau
    places = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    return mean(F.cross_entropy(logits.flatten(0, 1), places.flatten(), reduction="none"), count)
