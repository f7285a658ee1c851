"""Region classification of a student that is being trained."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from densecli.core.device import full_precision
from densecli.core.distributed import Distributed
from densecli.core.errors import DenseCLIError
from densecli.core.metrics import REGION_METRICS
from densecli.evaluation.classify import classify
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.panoptic import PanopticDataset, find_layout
from densecli.models.categories import load_categories
from densecli.models.dense import DenseCLIP
from densecli.models.student import Student
from densecli.models.text import category_embeddings

PREFIX = "evaluate/"
METRICS = {
    f"{PREFIX}{metric.heading.replace(' ', '-')}": metric
    for metric in REGION_METRICS
    if "top-5" not in metric.heading
}
"""What is measured, by the names that logs have for it."""


class RegionMeasure:
    """Boxes, Masks-T, Masks-S and stuff as thing of a student, as `evaluate` gives them for its export.

    Attributes:
        names: Whether a larger value is better, by name.
        about: The data, as JSON values.
        notes: What a user should know.
    """

    def __init__(
        self,
        student: Student,
        processes: Distributed,
        *,
        data: str,
        split: str,
        categories: str,
        limit: int,
        config: ClassifyConfig,
    ) -> None:
        """Reads the annotations.

        Args:
            student: The student, whose weights change between measurements.
            processes: The processes that share the photos.
            data: Folder of a data set in the COCO or ADE20K panoptic layout.
            split: Split of the data set.
            categories: Name or file of the category set.
            limit: Number of photos.
            config: Canvas, mode and box limits.

        Raises:
            DenseCLIError: The student has no text tower, or there are no such annotations.
        """
        if not isinstance(student, DenseCLIP):
            raise DenseCLIError(
                "A student without a text tower cannot classify regions.",
                hint="Measure it on held-out photos: --holdout 0.01, without --evaluate-data.",
            )
        try:
            find_layout(Path(data), split)
        except DenseCLIError as error:
            raise DenseCLIError(
                str(error),
                hint="Give --evaluate-data the folder of annotations in the layout of COCO or ADE20K, and "
                "--evaluate-split; or --holdout 0.01, which needs none.",
            ) from None
        self._student, self._processes, self._config = student, processes, config
        self._categories = load_categories(categories)
        self._dataset = PanopticDataset(data, split, self._categories, limit, crowds=config.crowds)
        self.names = {name: metric.higher_is_better for name, metric in METRICS.items()}
        self.about: dict[str, Any] = {
            "evaluate_data": data,
            "evaluate_split": split,
            "evaluate_categories": categories,
        }
        self.notes = (
            f"Regions of {len(self._dataset)} photos of {data}, {split}, are classified while it trains.",
        )

    @cached_property
    def _text(self) -> torch.Tensor:
        """(D, C); a training changes no text tower."""
        return category_embeddings(self._student, self._categories.names)

    def __call__(self) -> dict[str, float]:
        """Classifies the regions; in percent, without the figures of which there is no segment."""
        with full_precision(self._processes.device):
            found = classify(
                self._student, self._dataset, self._text, "", self._config, self._processes, silent=True
            )
        values = {name: getattr(found, metric.field) for name, metric in METRICS.items()}
        return {name: value for name, value in values.items() if value is not None}
