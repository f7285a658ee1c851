"""The report of region classification as a page: its sections, and warnings before any number."""

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

WORST_CLASSES, AFFINITY_PHOTOS = 15, 6
_CHARTED = {m.heading: m.field for m in REGION_METRICS if "top-5" not in m.heading}


def write_region_page(
    folder: str | Path,
    subjects: Mapping[str, ModelUnderTest],
    results: Mapping[str, Classification],
    *,
    crops: Mapping[str, Classification] | None = None,
    data: str,
    split: str,
    categories: str,
    config: ClassifyConfig,
    limit: int | None = None,
    device: str = "auto",
    more: Sequence[Section] = (),
) -> Path:
    """Writes FOLDER/index.html about one model, or about one before and after training.

    Args:
        folder: Of the page.
        subjects: The models, by the names that `results` has.
        results: What was measured; see `region_sections`.
        crops: The same of crops; see `ClassifyConfig`.
        data: Folder of the data set that was measured on; a few of its photos are drawn.
        split: Of the data set.
        categories: Name or file of the category set.
        config: As measured.
        limit: Number of photos, by default all.
        device: That draws affinities; see `pick_device`.
        more: Sections after those about regions.
    """
    dataset = PanopticDataset(data, split, load_categories(categories), limit)
    networks = {
        name: subject.token_map(config.mode, pick_device(device)) for name, subject in subjects.items()
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
        f"{list(subjects.values())[-1].title}: region classification",
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
    """Sections of a page about one model, or about one before and after training.

    Args:
        results: One by the model's title, or two called "before" and "after", in this order.
        crops: The same of crops; see `ClassifyConfig`.
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
    confusions = [
        Figure(
            title=n,
            image=picture,
            alt=f"Confusion matrix, {n}: a row for each true class, a column for each name, things first.",
            width=picture.width,
        )
        for n, picture in zip(results, confusion_pictures(list(results.values())), strict=True)
    ]
    sections = [
        Section(title="Regions", parts=[*first, chart], text=_WHAT_IS_MEASURED[: 2 if crops else 1]),
        Section(title="Confusion", parts=[*confusions, block_table(results)], text=[_CONFUSION]),
        Section(title="Sizes", parts=[size_table(everything)]),
        Section(title="Classes", parts=[class_table(last, before, WORST_CLASSES)]),
    ]
    if affinities:
        sections.append(Section(title="Affinities", parts=affinities, text=[_AFFINITIES]))
    return sections


def meaning(results: Mapping[str, Classification]) -> tuple[str, list[str]]:
    """What the numbers of a page mean.

    Returns:
        A warning to stand before any number, or "", and paragraphs to stand after them.
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
    "Each annotated segment is pooled from the dense map; its class is the nearest text embedding of all"
    " categories. Boxes: things, by RoIAlign of their box. Masks-T and Masks-S: things and stuff, by the"
    " mean of their tokens. Accuracies are means over the classes present. Stuff as thing is the foreground"
    " bias, the share of stuff segments that are called a thing: lower is better.",
    "Crops: each segment's own crop through the whole image encoder, at its own resolution (things with 1.5"
    " times their box, stuff by their box; so Boxes and Masks-T are the same). It is what CLIP says when it"
    " is asked about one region at a time, which costs a forward a region.",
)
_CONFUSION = (
    "A row is a true class, a column what its masks are called; brighter is more of the row. Rows and columns"
    " are things first, then stuff: the lower left block is stuff called a thing, the foreground bias."
)
_AFFINITIES = (
    "How alike every token is to that below the ringed point: yellow is the same, dark blue the least alike"
    " of the photo. A map that tells segments apart is yellow on one segment and dark beyond it."
)
_MEANING = (
    "Numbers with random weights prove that the parts fit together, never accuracy. A paper's accuracy needs"
    " the paper's weights on the paper's data.",
    "A small difference between two runs may be chance: train with another --seed to see how far it goes.",
)
