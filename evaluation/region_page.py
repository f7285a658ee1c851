"""The HTML report of region classification: its sections, and the warnings above them."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from densecli.core.charts import WIDTH, bar_chart
from densecli.core.device import pick_device
from densecli.core.metrics import REGION_METRICS
from densecli.core.page import RANDOM_WEIGHTS, Figure, Section, write_page
from densecli.evaluation.affinity_figures import affinity_figures
from densecli.evaluation.config import ClassifyConfig
from densecli.evaluation.confusion import confusion_pictures
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.panoptic import PanopticDataset
from densecli.evaluation.region_counts import Classification
from densecli.evaluation.report import block_table, class_table, comparison, regions_table, size_table
from densecli.models.categories import load_categories
from densecli.shards.config import DeviceSettings

WORST_CLASSES, AFFINITY_PHOTOS = 15, 6
_CHARTED = {m.heading: m.field for m in REGION_METRICS if "top-5" not in m.heading}


def write_region_page(
    folder: str | Path,
    models_under_test: Mapping[str, ModelUnderTest],
    results: Mapping[str, Classification],
    *,
    crops: Mapping[str, Classification] | None = None,
    data: str,
    split: str,
    categories: str,
    config: ClassifyConfig,
    limit: int | None = None,
    device: str = DeviceSettings.device,
    more: Sequence[Section] = (),
) -> Path:
    """Writes FOLDER/index.html about one model, or about one before and after training.

    Args:
        folder: Folder of the page.
        models_under_test: The models, by the names in `results`.
        results: The results; see `region_sections`.
        crops: Results of the segments' crops, by the same names; see `ClassifyConfig`.
        data: Folder of the data set; affinities are drawn on a few of its photos.
        split: Split of the data set.
        categories: Name or file of the category set.
        config: The configuration of the results.
        limit: Number of photos, by default all.
        device: Device on which affinities are computed; see `pick_device`.
        more: Sections after those about regions.
    """
    dataset = PanopticDataset(data, split, load_categories(categories), limit)
    networks = {
        name: under_test.token_map(config.mode, pick_device(device))
        for name, under_test in models_under_test.items()
    }
    affinities = affinity_figures(networks, dataset, config.canvas, AFFINITY_PHOTOS)
    warning, paragraphs = meaning(results)
    last = list(results.values())[-1]
    sections = [
        *region_sections(results, crops, affinities),
        *more,
        Section(title="Every class", parts=[class_table(last, results.get("before"))]),
        Section(title="What the numbers mean", text=paragraphs),
    ]
    return write_page(
        Path(folder) / "index.html",
        f"{list(models_under_test.values())[-1].title}: region classification",
        sections,
        summary=f"{len(dataset)} photos of the split {split} of {data}, on a canvas of {config.canvas} px,"
        f" read out in the mode {config.mode}.",
        warning=warning,
    )


def region_sections(
    results: Mapping[str, Classification],
    crops: Mapping[str, Classification] | None = None,
    affinities: Sequence[Figure] = (),
) -> list[Section]:
    """The sections of a page about one model, or about one before and after training.

    Args:
        results: One by the model's title, or two named "before" and "after", in this order.
        crops: Results of the segments' crops, by the same names; see `ClassifyConfig`.
        affinities: Pictures of token affinities.
    """
    before, last = results.get("before"), list(results.values())[-1]
    everything = {**results, **{f"{name}, crops": found for name, found in (crops or {}).items()}}
    drawn = {n: [getattr(r, field) for field in _CHARTED.values()] for n, r in everything.items()}
    first = [comparison(before, last)] if before else []
    if crops or not before:
        first.append(regions_table(everything))
    chart = Figure(
        title="",
        image=bar_chart(drawn, list(_CHARTED)),
        alt="; ".join(
            f"{n}: " + ", ".join(map(_value_text, _CHARTED, values)) for n, values in drawn.items()
        ),
        width=WIDTH,
    )
    sections = [
        Section(title="Regions", parts=[*first, chart], text=_WHAT_IS_MEASURED[: 2 if crops else 1]),
        confusion_section(results),
        Section(title="Sizes", parts=[size_table(everything)]),
        Section(title="Classes", parts=[class_table(last, before, WORST_CLASSES)]),
    ]
    if affinities:
        sections.append(Section(title="Affinities", parts=affinities, text=[_AFFINITIES]))
    return sections


def confusion_section(results: Mapping[str, Classification]) -> Section:
    """The confusion matrix of each result, and the shares of its blocks."""
    figures = [
        Figure(
            title=name,
            image=picture,
            alt=f"Confusion matrix, {name}: rows are true classes and columns predicted ones, things first.",
            width=picture.width,
        )
        for name, picture in zip(results, confusion_pictures(list(results.values())), strict=True)
    ]
    return Section(title="Confusion", parts=[*figures, block_table(results)], text=[_CONFUSION])


def meaning(results: Mapping[str, Classification]) -> tuple[str, list[str]]:
    """Explains the numbers of a page.

    Returns:
        A warning for the top of the page, or "", and paragraphs for its end.
    """
    one = next(iter(results.values()))
    warning, paragraphs = one.categories.note, list(_MEANING)
    if any(result.random_weights for result in results.values()):
        warning = RANDOM_WEIGHTS
    sources = [f"Weights, {name}: {result.weights}." for name, result in results.items()]
    return warning, [*paragraphs, *sources]


def _value_text(name: str, value: float | None) -> str:
    return f"{name} -" if value is None else f"{name} {value:.1f}"


_WHAT_IS_MEASURED = (
    "Each annotated segment is pooled from the dense map and gets the category with the nearest text"
    " embedding. Boxes: things, by RoIAlign of their box. Masks-T and Masks-S: things and stuff, by the"
    " mean of their tokens. Accuracies are means over the classes present. Stuff as thing is the foreground"
    " bias, the share of stuff segments that are classified as a thing: lower is better.",
    "Crops: each segment is cropped and goes through the whole image encoder (things at 1.5 times their box,"
    " stuff at its box; so Boxes and Masks-T are the same). This is what CLIP predicts for one region at a"
    " time, at the cost of a forward pass for each region.",
)
_CONFUSION = (
    "Each row is a true class and each column a predicted one; brighter is a larger share of the row. Things"
    " come first, then stuff: the lower left block is stuff classified as a thing, the foreground bias."
)
_AFFINITIES = (
    "The similarity of every token to the token below the ringed point: yellow is identical, dark blue the"
    " least similar in the photo. A map that separates segments is yellow on one segment and dark beyond it."
)
_MEANING = (
    "Numbers with random weights only show that the parts fit together. To reproduce a paper's accuracy, use"
    " the paper's weights and data.",
    "A small difference between two runs may be chance: train with another --seed to see how much it varies.",
)
