"""What an ablation leaves: its table in csv, markdown and on a page with plots, and the teachers' bill."""

from collections.abc import Sequence
from pathlib import Path

from densecli.ablation.aggregate import Row, bill_table, markdown, overview, rows, rows_csv, runs_csv
from densecli.ablation.line_chart import chart
from densecli.ablation.runs import Done
from densecli.ablation.spec import Spec
from densecli.ablation.teacher_cost import Charge
from densecli.evaluation.page import RANDOM, Figure, Section, write_page


def summary(done: Sequence[Done], charges: Sequence[Charge], *, title: str) -> str:
    """The table and the bill in print."""
    found = rows(done)
    table = overview(found, _headings(found))
    text = f"{title}\n\n{table.text()}"
    return f"{text}\n\n{bill_table(charges).text()}" if charges else text


def write_outcome(folder: Path, spec: Spec, done: Sequence[Done], charges: Sequence[Charge]) -> Path:
    """FOLDER/table.csv, runs.csv, table.md and index.html; returns the last."""
    found = rows(done)
    headings = _headings(found)
    table = overview(found, headings, title="Settings")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text(rows_csv(found))
    (folder / "runs.csv").write_text(runs_csv(done))
    (folder / "table.md").write_text(markdown(table))
    sections = [Section(title="Table", parts=[table])]
    plotted = [h for h in headings if any(row.settings and h in row.figures for row in found)]
    if plotted:
        sections.append(Section(title="Plots", parts=[_figure(heading, found) for heading in plotted]))
    if charges:
        sections.append(Section(title="The bill", parts=[bill_table(charges)]))
    if failures := [run for run in done if run.error]:
        text = [f"{run.name}: {run.error}" for run in failures]
        sections.append(Section(title="What failed", text=text))
    warning = RANDOM if any(run.random_weights for run in done) else ""
    return write_page(folder / "index.html", spec.title, sections, summary=spec.about, warning=warning)


def _headings(found: Sequence[Row]) -> list[str]:
    """The figures of all rows, but for the top-5 ones, which the csv has."""
    every = dict.fromkeys(heading for row in found for heading in row.figures)
    return [heading for heading in every if "top-5" not in heading]


def _figure(heading: str, found: Sequence[Row]) -> Figure:
    models = [row for row in found if not row.settings and heading in row.figures]
    levels = {row.name: row.figures[heading].mean for row in models}
    values = "; ".join(
        f"{', '.join(f'{f} {v}' for f, v in row.settings.items())}: {row.figures[heading].text()}"
        for row in found
        if row.settings and heading in row.figures
    )
    note = "Mean, and a bar from the lowest to the highest seed."
    return Figure(title=heading, image=chart(heading, found, levels), alt=values, note=note, width=530)
