"""The page of a diagnosis."""

from collections.abc import Sequence
from pathlib import Path

from densecli.core.charts import WIDTH, Measured, line_chart
from densecli.core.page import RANDOM_WEIGHTS, Figure, Section, Table, write_page
from densecli.evaluation.diagnosis import Diagnosis
from densecli.evaluation.region_page import confusion_section
from densecli.evaluation.report import regions_table

SCORE_SCALE = 20.0
"""A difference of proxy-token scores that is small beside this looks flat."""


def write_diagnosis_page(
    folder: str | Path, title: str, diagnosis: Diagnosis, *, read_out: str, note: str = ""
) -> Path:
    """Writes FOLDER/index.html.

    Args:
        folder: Folder of the page.
        title: Title of the page.
        diagnosis: What to show.
        read_out: Categories, canvas and mode in words.
        note: A caveat about the categories, shown above the numbers.
    """
    random = any(found.random_weights for found in diagnosis.models.values())
    sections = [
        _figures(diagnosis),
        *(Section(title=photo.key, parts=photo.figures) for photo in diagnosis.photos),
        *_regions(diagnosis),
        Section(title="What is shown", text=_meaning(diagnosis)),
    ]
    return write_page(
        Path(folder) / "index.html",
        title,
        sections,
        summary=f"Photos drawn: {len(diagnosis.photos)}; measured: {diagnosis.measured_photos}; {read_out}.",
        warning=RANDOM_WEIGHTS if random else note,
    )


def figures_table(diagnosis: Diagnosis) -> Table:
    """A row for each figure, a column for each model."""
    models = diagnosis.models.values()
    titles = [
        f"{title} (random weights)" if each.random_weights else title
        for title, each in diagnosis.models.items()
    ]
    rows = [
        ["coupling ratio, mean", *(_number(each.coupling_ratio_mean) for each in models)],
        ["coupling ratio, median", *(_number(each.coupling_ratio_median) for each in models)],
        ["proxy-token score", *(_number(each.proxy_score) for each in models)],
    ]
    return Table(
        title="Coupling and proxy tokens",
        columns=["", *titles],
        rows=rows,
        note="Coupling ratio: R-SC's eq. 15, over the photos measured. Proxy-token score: the"
        f" mean of the later half of the layers, over the {len(diagnosis.photos)} drawn. Lower is better for"
        " each.",
    )


def _figures(diagnosis: Diagnosis) -> Section:
    scores = {title: found.proxy_scores for title, found in diagnosis.models.items() if found.proxy_scores}
    parts: list[Table | Figure] = [figures_table(diagnosis)]
    if scores:
        lines = {
            title: [Measured(str(n), *[score] * 3) for n, score in enumerate(of_model, start=1)]
            for title, of_model in scores.items()
        }
        chart = line_chart(
            lines, x_label="layer", y_label="proxy-token score", full_scale=SCORE_SCALE, levels={"even": 1.0}
        )
        alt = "; ".join(
            f"{title}: {', '.join(f'{score:.1f}' for score in each)}" for title, each in scores.items()
        )
        parts.append(
            Figure(title="Proxy tokens by layer", image=chart, alt=f"Proxy-token scores, {alt}", width=WIDTH)
        )
    return Section(title="Figures", parts=parts, text=diagnosis.notes)


def _regions(diagnosis: Diagnosis) -> list[Section]:
    results = {title: found.regions for title, found in diagnosis.models.items() if found.regions}
    if not results:
        return []
    text = [
        f"Of the {diagnosis.measured_photos} photos measured here; densecli evaluate measures a whole split."
    ]
    return [Section(title="Regions", parts=[regions_table(results)], text=text), confusion_section(results)]


def _meaning(diagnosis: Diagnosis) -> Sequence[str]:
    sources = [f"Weights, {title}: {found.weights}." for title, found in diagnosis.models.items()]
    return [*_EXPLANATION, *sources]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


_EXPLANATION = (
    "Attention: how a query divides its attention among the tokens, the mean over heads, from none (dark) to"
    " the most that a token of the photo gets (yellow). Layers run as in CLIP itself, whatever the read-out.",
    "Proxy tokens (DeCLIP): tokens of the background that all others attend to, wherever they are: the same"
    " bright spots for every query. The score is ours: how many times more attention the top 1 % of the"
    " photo's tokens get from all its tokens than an even share, which would be 1.",
    "Correlation: the cosine of every token with the one below the ring, after each layer and in the dense"
    " map, which is what regions are pooled from. A map that separates regions is yellow on one of them.",
    "Nearest categories: the category whose text embedding is nearest to each token of the dense map."
    " Similarity: the cosine with one text; the scale of each panel is its own.",
    "Coupling ratio (R-SC, eq. 15): the cosine of a token with its nearest token of a second photo beside it,"
    " over their cosine when each photo is encoded alone; 1 if photos do not change each other's features. A"
    " divisor near 0 can change the mean by any amount, so the median is given as well.",
)
