"""Which beta suits a P-VLM, and from which student to start: the rule that docs/ablations.md measures."""

FAR = 10.0
"""Points by which Masks-S is far below Boxes: between the two P-VLMs measured, 25 below and 4 above."""
BIASED = "use --beta 0 and start from a student that CLIPSelf has tuned (train --init RUN)"
UNBIASED = "use --beta 0.3 to 1"


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
