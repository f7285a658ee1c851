"""The boxes that detection classifies: the annotated ones, or those of a file of proposals."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from densecli.core.errors import DenseCLIError
from densecli.evaluation.instances import Instances
from densecli.shards.proposals import HINT, compare_names, read_proposals


@dataclass(frozen=True, kw_only=True)
class GivenBoxes:
    """The boxes of every photo.

    Attributes:
        boxes: For each photo (N, 4) float64 xyxy in pixels.
        proposed: Whether they are proposals, which overlap each other.
        text: What they are, in words with all counts.
    """

    boxes: Sequence[np.ndarray]
    proposed: bool
    text: str


def given_boxes(instances: Instances, proposals: str | None) -> GivenBoxes:
    """The boxes to classify.

    Args:
        instances: Photos with annotated boxes.
        proposals: A COCO-style json of boxes; None for the annotated boxes. Their scores are not read.

    Raises:
        DenseCLIError: The file is malformed, or has no box with an area for any photo.
    """
    if proposals is None:
        boxes = [photo.boxes[~photo.crowds] for photo in instances.photos]
        return GivenBoxes(
            boxes=boxes, proposed=False, text=f"the {sum(map(len, boxes))} annotated boxes themselves"
        )
    found = read_proposals(proposals)
    facts = compare_names(found, (photo.name for photo in instances.photos), lambda _: "")
    boxes, without_area = [], 0
    for photo in instances.photos:
        rows = np.array(found.boxes.get(photo.name, []), np.float64).reshape(-1, 5)[:, :4]
        kept = rows[(rows[:, 2:] > 0).all(1)]
        without_area += len(rows) - len(kept)
        boxes.append(np.concatenate([kept[:, :2], kept[:, :2] + kept[:, 2:]], 1))
    if not any(map(len, boxes)):
        raise DenseCLIError(f"{proposals} has no box with an area for these photos.", hint=HINT)
    text = f"{sum(map(len, boxes))} boxes of {Path(proposals).name}"
    if lacking := len(instances.photos) - facts["matched"]:
        text += f", which has none for {lacking} photos"
    if without_area:
        text += f", {without_area} more without an area left out"
    return GivenBoxes(boxes=boxes, proposed=True, text=text)
