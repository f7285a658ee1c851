"""The figures that `evaluate` measures: their headings in tables, their fields in its JSON, their unit."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One figure.

    Attributes:
        heading: In tables and charts.
        field: In the JSON of `evaluate`.
        higher_is_better: False where a lower value is better.
        percent: Whether it is a percentage; otherwise it is a ratio.
    """

    heading: str
    field: str
    higher_is_better: bool = True
    percent: bool = True

    @property
    def label(self) -> str:
        """The heading with the unit, for the axis of a chart."""
        unit = ", %" if self.percent else ""
        return f"{self.heading}{unit}{'' if self.higher_is_better else ' (lower is better)'}"


REGION_METRICS = (
    Metric(heading="Boxes", field="boxes_top1"),
    Metric(heading="Boxes top-5", field="boxes_top5"),
    Metric(heading="Masks-T", field="masks_thing_top1"),
    Metric(heading="Masks-T top-5", field="masks_thing_top5"),
    Metric(heading="Masks-S", field="masks_stuff_top1"),
    Metric(heading="Masks-S top-5", field="masks_stuff_top5"),
    Metric(heading="stuff as thing", field="stuff_as_thing", higher_is_better=False),
)
"""Figures of region classification, in the order of the papers' tables."""
TASK_METRICS = (
    Metric(heading="mIoU", field="miou"),
    Metric(heading="pixel accuracy", field="pixel_accuracy"),
    Metric(heading="mean accuracy", field="mean_accuracy"),
    Metric(heading="top-1", field="top1"),
    Metric(heading="top-5", field="top5"),
)
"""Figures of segmentation, patch kNN and image-level zero-shot."""
DETECTION_METRICS = (
    Metric(heading="AP50 novel", field="ap50_novel"),
    Metric(heading="AP50 base", field="ap50_base"),
    Metric(heading="AP50", field="ap50"),
    Metric(heading="AP rare", field="ap_rare"),
    Metric(heading="AP common", field="ap_common"),
    Metric(heading="AP frequent", field="ap_frequent"),
    Metric(heading="AP", field="ap"),
)
"""Figures of detection on given boxes; which of the groups there are, the annotations say."""
COUPLING_METRICS = (
    Metric(
        heading="coupling ratio, mean", field="coupling_ratio_mean", higher_is_better=False, percent=False
    ),
    Metric(
        heading="coupling ratio, median", field="coupling_ratio_median", higher_is_better=False, percent=False
    ),
    Metric(
        heading="cross-segment similarity",
        field="cross_segment_similarity",
        higher_is_better=False,
        percent=False,
    ),
)
"""Figures of `evaluate --coupling`."""
METRICS = {
    metric.heading: metric
    for metric in (*REGION_METRICS, *TASK_METRICS, *DETECTION_METRICS, *COUPLING_METRICS)
}
"""All figures by heading."""
