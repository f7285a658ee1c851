"""Writes the pictures and the report of the demo."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from densecli.core.drawing import side_by_side
from densecli.core.page import Figure, Section
from densecli.evaluation.confusion import confusion_pictures
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.preview import contact_sheet, retrieved_views
from densecli.evaluation.region_counts import Classification
from densecli.evaluation.region_page import write_region_page
from densecli.shards.store import Store


def write_demo(
    folder: Path,
    store: Store,
    labels: str,
    theta: float,
    models_under_test: Mapping[str, ModelUnderTest],
    results: Mapping[str, Classification],
    where: Mapping[str, Any],
) -> list[str]:
    """Draws the labels of a column and the confusion matrices, and writes the report. Says where they are.

    Args:
        folder: Folder to write to.
        store: The store.
        labels: NAME-ID of the column of labels.
        theta: The loss ignores labels with a confidence below this.
        models_under_test: The models by name, among them "before", "undecoupled" and "after".
        results: Their results by the same names.
        where: Data and settings of the evaluation; see `write_region_page`.
    """
    cells, confusion = folder / "preview.png", folder / "confusion.png"
    column = store.find("targets", labels)
    views = [
        view
        for least in (None, theta)
        for view in retrieved_views(store, column, view=12, limit=3, theta=least)
    ]
    taught = contact_sheet(views, min_side=360)
    taught.save(cells)
    compared = {"without decoupling": results["undecoupled"], "decoupled": results["after"]}
    pictures = dict(zip(compared, confusion_pictures(list(compared.values())), strict=True))
    side_by_side(pictures).save(confusion)
    labelled = Figure(
        title="",
        image=taught,
        alt="Three scenes with the label and confidence of each cell; below, the cells that the loss keeps.",
        note=f"Above: all cells of a view. Below: those with a confidence above theta = {theta:g}.",
        width=taught.width,
    )
    more = [Section(title="The P-VLM's labels", parts=[labelled])]
    students = {name: models_under_test[name] for name in ("before", "after")}
    page = write_region_page(folder / "report", students, results, more=more, **where)
    return [
        f"Grid cells with their retrieved labels, and the cells that the loss keeps: {cells}",
        f"Confusion matrices without decoupling and decoupled: {confusion}",
        f"Report: {page.resolve().as_uri()}",
    ]
