"""The page of a training: curves of its losses, and of what was measured while it went on."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, quantiles
from typing import Any

from densecli.core.charts import WIDTH, Curve, history_chart
from densecli.core.metrics import METRICS
from densecli.core.page import RANDOM_WEIGHTS, Figure, Section, Table, write_page
from densecli.train.holdout import PREFIX as HOLDOUT
from densecli.train.run_folder import RunFolder
from densecli.train.watch import REGIONS

POINTS = 60
"""Largest number of points of a curve."""
STEPS = 5
"""Smallest number of steps whose mean a point is, where the training has so many."""
OF_STEPS = {
    "grad_norm": "norm, no unit",
    "lr": "rate, no unit",
    "images_per_s": "photos a second",
}
"""What every step logs about itself."""
_NO_VALUES = ("step", "epoch")

Row = Mapping[str, Any]


def write_training_page(run: str | Path, result: Mapping[str, Any], changes: Sequence[str]) -> Path:
    """Writes RUN/report.html of a training that has ended: one page, without network.

    Args:
        run: The run folder.
        result: See `Trainer.fit`.
        changes: What the training has changed, a sentence each.

    Returns:
        Path of the page.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    rows = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    names = list(dict.fromkeys(name for row in rows for name in row if name not in _NO_VALUES))
    before = (result.get("measured") or {}).get("before", {})
    best = result.get("best") or {}

    def charts(
        wanted: Iterable[str], *, labels: Mapping[str, str] = {}, measured: bool = False
    ) -> list[Figure]:
        found = []
        for name in wanted:
            first = [{"step": 0, name: before[name]}] if name in before else []
            marked = best.get("step") if best.get("metric") == name else None
            label = labels.get(name, name)
            found.append(curve_figure(name, [*first, *rows], label=label, measured=measured, marked=marked))
        return [figure for figure in found if figure]

    held_out = [name for name in names if name.startswith(HOLDOUT)]
    regions = [name for name in names if name.startswith(REGIONS)]
    terms = [name for name in names if name in (config.get("losses") or {})]
    # The only term of weight 1 is the loss.
    losses = ["loss", *(terms if [*(config.get("losses") or {}).values()] != [1] else ())]
    others = [n for n in names if n not in {*held_out, *regions, *terms, *OF_STEPS, "loss"}]
    weighted = "Each term is drawn before its weight. " if losses[1:] else ""
    per_step = f"{weighted}The line is the mean of neighbouring steps; eight of ten steps lie in the band."
    sections = [
        Section(title="What changed", parts=[_settings(config, len(rows))], text=changes),
        Section(title="Loss", parts=charts(losses), text=[per_step]),
        Section(title="Held-out photos", parts=charts(held_out, measured=True)),
        Section(
            title="Regions of annotated photos",
            parts=charts(regions, labels={name: _label(name) for name in regions}, measured=True),
        ),
        Section(title="Also logged", parts=charts([*others, *OF_STEPS], labels=OF_STEPS)),
    ]
    title = f"Training of {config.get('student', 'a student')}: {folder.root.name}"
    warning = RANDOM_WEIGHTS if result["random_weights"] else ""
    return write_page(
        folder.root / folder.REPORT, title, [each for each in sections if each.parts], warning=warning
    )


def curve_figure(
    name: str, rows: Sequence[Row], *, label: str, measured: bool = False, marked: int | None = None
) -> Figure | None:
    """The curve of a value; None if it has no finite value.

    Args:
        name: Its name in the rows.
        rows: Rows of metrics, each with its step. A value that is None was not finite.
        label: The value and its unit.
        measured: Whether it was measured now and then, so that each value is a point.
        marked: The step to mark as the best.
    """
    logged = [(row["step"], row[name]) for row in rows if name in row]
    values = [(step, value) for step, value in logged if value is not None]
    if not values:
        return None
    points = [[value] for value in values] if measured else list(_groups(values))
    curve = _curve(points)
    largest = max(abs(value) for _, value in values)
    percent = name.startswith(REGIONS)
    first, last = curve.y[0], curve.y[-1]
    notes = [f"From {first:.4g} to {last:.4g}."]
    if marked is not None:
        notes.append(f"Dashed: the best, after step {marked}.")
    if lost := len(logged) - len(values):
        notes.append(f"{lost} value{'s' if lost > 1 else ''} not finite and left out.")
    return Figure(
        title=name.removeprefix(REGIONS).removeprefix(HOLDOUT),
        image=history_chart(curve, y_label=label, full_scale=100 if percent else largest, marked=marked),
        alt=f"{name} over {len(values)} {'measurements' if measured else 'steps'}. {' '.join(notes)}",
        note=" ".join(notes),
        width=WIDTH,
    )


def _groups(values: Sequence[tuple[int, float]]) -> Iterator[Sequence[tuple[int, float]]]:
    """Neighbouring steps, at least `STEPS` where there are so many, in at most `POINTS` groups."""
    number = max(1, min(POINTS, len(values) // STEPS))
    for i in range(number):
        yield values[i * len(values) // number : (i + 1) * len(values) // number]


def _curve(points: Sequence[Sequence[tuple[int, float]]]) -> Curve:
    """The mean of each group, and the band of eight tenths of its values."""
    low, high = [], []
    for group in points:
        found = [value for _, value in group]
        tenths = quantiles(found, n=10, method="inclusive") if found[1:] else found
        low.append(tenths[0])
        high.append(tenths[-1])
    return Curve(
        x=[fmean(step for step, _ in group) for group in points],
        y=[fmean(value for _, value in group) for group in points],
        low=low,
        high=high,
    )


def _label(name: str) -> str:
    """The heading of a figure of regions with its unit."""
    heading = name.removeprefix(REGIONS).replace("-", " ")
    metric = next((each for each in METRICS.values() if each.heading.replace("-", " ") == heading), None)
    return metric.label if metric else heading


def _settings(config: Mapping[str, Any], steps: int) -> Table:
    """The settings that a reader asks for first."""
    losses = " + ".join(f"{weight:g} {name}" for name, weight in (config.get("losses") or {}).items())
    found = {
        "method": config.get("method"),
        "loss": losses,
        "student": config.get("student"),
        "store": config.get("store"),
        "steps": f"{steps:,} of {config['total_steps']:,}",
        "photos a step": config["samples_per_step"],
        "peak learning rate": f"{config['lr']:g}",
        "seed": config["seed"],
    }
    rows = [[name, str(value)] for name, value in found.items() if value not in (None, "")]
    return Table(title="", columns=["setting", "value"], rows=rows, note="All of them are in config.json.")
