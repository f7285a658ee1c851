"""Which beta suits a P-VLM, and from which student to start: the rule that docs/ablations.md measures."""

from densecli.models.registry import resolve
from densecli.shards.datasets import DATASETS, Dataset

FAR = 10.0
"""Points by which Masks-S is far below Boxes: between the two P-VLMs measured, 25 below and 4 above."""
ENOUGH = 200
"""Fewest boxes of things, and masks of stuff: the gap's standard error is then at most 5 points."""
BIASED = "use --beta 0 and start from a student that CLIPSelf has tuned (train --init RUN)"
UNBIASED = "use --beta 0.3 to 1"


def is_pvlm(model: str) -> bool:
    """Whether a model is larger than those that are trained.

    Args:
        model: Name of a CLIP.

    Returns:
        False for a ViT-B, and for the network of a data set's default student.
    """
    students = [Dataset(source=""), *(DATASETS[name] for name in DATASETS)]
    arch = resolve(model)
    return arch.size != "base" and arch.config not in [resolve(each.student).config for each in students]


def advice(boxes: float, stuff: float) -> str:
    """Says how to train by a P-VLM's labels.

    Args:
        boxes: Its accuracy on the boxes of things, in percent.
        stuff: Its accuracy on the masks of stuff, Masks-S, in percent.
    """
    below = boxes - stuff
    gap = f"{abs(below):.1f} points {'below' if below > 0 else 'above'} Boxes"
    return f"As a P-VLM: Masks-S is {gap}; to train by its labels, {BIASED if below >= FAR else UNBIASED}."


def advice_before_measuring(pvlm: str) -> str:
    """The rule, for a P-VLM whose accuracies are not known."""
    return (
        f"Labels of {pvlm}: where its Masks-S is far below its Boxes (densecli evaluate --student {pvlm} "
        f"measures both), {BIASED}; where not, {UNBIASED}."
    )
