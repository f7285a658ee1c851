"""The report of an ablation: tables as CSV and markdown, and a page with charts and teacher costs."""

from collections.abc import Sequence
from pathlib import Path

from densecli.ablation.aggregate import (
    SettingRow,
    aggregate,
    cost_table,
    runs_csv,
    settings_csv,
    settings_table,
)
from densecli.ablation.charts import metric_chart
from densecli.ablation.runs import RunResult
from densecli.ablation.spec import Spec
from densecli.ablation.teacher_cost import TeacherCost
from densecli.ablation.verdict import Verdict, verdict_table
from densecli.core import fs
from densecli.core.page import RANDOM_WEIGHTS, Section, write_page


def summary(
    results: Sequence[RunResult],
    costs: Sequence[TeacherCost],
    found: Sequence[Verdict] = (),
    *,
    title: str,
) -> str:
    """The tables of settings and of teacher cost, and the verdicts, for a terminal."""
    rows = aggregate(results)
    parts = [title, settings_table(rows, _headings(rows)).text()]
    if found:
        parts += [verdict_table(found).text(), "\n".join(each.sentence for each in found)]
    return "\n\n".join([*parts, *([cost_table(costs).text()] if costs else [])])


def write_report(
    folder: Path,
    spec: Spec,
    results: Sequence[RunResult],
    costs: Sequence[TeacherCost],
    found: Sequence[Verdict] = (),
    *,
    first: Sequence[Section] = (),
) -> Path:
    """Writes table.csv, runs.csv, table.md and index.html into a folder.

    Args:
        folder: The folder.
        spec: The ablation.
        results: Its runs.
        costs: The cost of their teachers.
        found: What adding each factor gives.
        first: Sections that the page begins with.

    Returns:
        The path of the page.
    """
    rows = aggregate(results)
    headings = _headings(rows)
    table = settings_table(rows, headings, title="Settings")
    fs.write_text(folder / "table.csv", settings_csv(rows))
    fs.write_text(folder / "runs.csv", runs_csv(results))
    fs.write_text(folder / "table.md", table.markdown())
    sections = [*first, Section(title="Settings", parts=[table], text=measured_on(results))]
    if found:
        sentences = [each.sentence for each in found]
        sections.append(Section(title="Verdict", parts=[verdict_table(found)], text=sentences))
    drawn = [h for h in headings if any(row.settings and h in row.figures for row in rows)]
    if drawn:
        sections.append(Section(title="Charts", parts=[metric_chart(heading, rows) for heading in drawn]))
    if costs:
        sections.append(Section(title="Teacher cost", parts=[cost_table(costs)]))
    if failures := [run for run in results if run.error]:
        text = [f"{run.name}: {run.error}" for run in failures]
        sections.append(Section(title="Failed runs", text=text))
    warning = RANDOM_WEIGHTS if any(run.random_weights for run in results) else ""
    return write_page(folder / "index.html", spec.title, sections, summary=spec.about, warning=warning)


def measured_on(results: Sequence[RunResult]) -> list[str]:
    """What the figures were measured on, a sentence for each data set; empty if that is not known."""
    return [f"Measured on {each}." for each in dict.fromkeys(run.measured for run in results) if each]


def measured_headings(results: Sequence[RunResult]) -> list[str]:
    """The figures that trained runs have, but top-5 accuracies of regions."""
    return _headings([row for row in aggregate(results) if row.settings])


def _headings(rows: Sequence[SettingRow]) -> list[str]:
    """The figures of all rows, except top-5 accuracies of regions, which are only in the CSV files."""
    every = dict.fromkeys(heading for row in rows for heading in row.figures)
    return [heading for heading in every if "top-5" not in heading]
