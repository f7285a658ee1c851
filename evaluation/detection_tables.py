"""Tables of detection on given boxes."""

from collections.abc import Sequence

from densecli.core.metrics import DETECTION_METRICS
from densecli.core.page import Table
from densecli.core.tables import plain
from densecli.evaluation.detection import Detection
from densecli.evaluation.given_boxes import GivenBoxes
from densecli.evaluation.instances import Instances

NOT_A_DETECTOR = (
    "This ranks given boxes: nothing finds or moves a box or says whether it holds an object, so it is no "
    "detector's AP."
)


def ap_table(
    results: Sequence[tuple[str, Detection]], instances: Instances, given: GivenBoxes, title: str
) -> Table:
    """One row for each model, with the groups that the annotations have.

    Args:
        results: Heading and result of each model.
        instances: What they were measured on.
        given: The boxes that they ranked.
        title: Title of the table.
    """
    values = [found.to_dict() for _, found in results]
    metrics = [metric for metric in DETECTION_METRICS if metric.field in values[0]]
    rows = [
        [heading, *(_number(value[metric.field]) for metric in metrics)]
        for (heading, _), value in zip(results, values, strict=True)
    ]
    columns = ["model", *(metric.heading for metric in metrics)]
    return Table(
        title=title, columns=columns, rows=rows, note=f"{_measured(instances, given)} {NOT_A_DETECTOR}"
    )


def category_table(heading: str, found: Detection, title: str) -> Table:
    """One row for each category with an annotated box, the worst first."""
    present = [row for row in found.categories if row.ap50 is not None]
    worst = sorted(present, key=lambda row: (row.ap50 or 0, -row.boxes, row.name))
    return Table(
        title=f"{title}, {heading}",
        columns=["category", "group", "AP50", "AP", "boxes"],
        rows=[
            [plain(row.name), row.group or "-", _number(row.ap50), _number(row.ap), f"{row.boxes:,}"]
            for row in worst
        ],
    )


def categories_text(instances: Instances) -> str:
    """The categories in one line: OV-COCO (48 base, 17 novel)."""
    groups = instances.categories.groups
    counts = [f"{groups.count(name)} {name}".strip() for name in sorted(set(groups))]
    return f"{instances.categories.name} ({', '.join(counts)})"


def _measured(instances: Instances, given: GivenBoxes) -> str:
    text = f"Percent, by pycocotools' COCOeval; {given.text}."
    if instances.empty:
        text += f" {instances.empty} photos of the file without an object of these categories are left out."
    if instances.without_area:
        text += f" {instances.without_area} annotated boxes without an area are left out."
    return text


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"
