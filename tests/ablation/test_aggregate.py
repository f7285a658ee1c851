"""Tables, charts and the teacher cost of an ablation."""

import csv
import io
import shutil
from pathlib import Path

import numpy as np
import pytest

from densecli.ablation.aggregate import aggregate, cost_table, runs_csv, settings_csv, settings_table
from densecli.ablation.report import summary, write_report
from densecli.ablation.runs import RunResult
from densecli.ablation.spec import Spec
from densecli.ablation.teacher_cost import teacher_costs
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, npz_bytes

RESULTS = [
    RunResult(name="scenes-s", figures={"Boxes": 25.0}),
    *(
        RunResult(
            name=f"{theta}-{row}-{seed}",
            settings={"theta": theta, "decoupling": row, "seed": seed},
            figures={"Boxes": 100 * theta + row + seed, "Boxes top-5": 90.0},
        )
        for theta in (0.1, 0.3, 0.5)
        for row in (1, 4)
        for seed in (0, 1, 2)
    ),
]


def test_rows__mean_and_range_over_seeds() -> None:
    found = aggregate(RESULTS)
    assert [row.settings for row in found[:3]] == [
        {},
        {"theta": "0.1", "decoupling": "1"},
        {"theta": "0.1", "decoupling": "4"},
    ]
    assert found[1].figures["Boxes"] == (12.0, 11.0, 13.0)
    assert found[1].figures["Boxes"].text() == "12.0 (11.0 to 13.0)"
    assert found[0].figures["Boxes"].text() == "25.0"


def test_overview__a_setting_whose_run_failed_says_so() -> None:
    failed = [*RESULTS[:-1], RunResult(name="last", settings=RESULTS[-1].settings, error="no room")]
    table = settings_table(aggregate(failed), ["Boxes"])
    assert table.columns == ["theta", "decoupling", "Boxes"]
    assert table.rows[0] == ["scenes-s", "", "25.0"]
    assert table.rows[-1] == ["0.5 [2 of 3 runs]", "4", "54.5 (54.0 to 55.0)"]
    assert "3 seeds" in table.note
    lines = table.markdown().splitlines()
    assert lines[1] == "| --- | --- | --- |" and len(lines) == 2 + 7


def test_rows__a_grid_of_seeds_alone_is_one_row() -> None:
    runs = [RunResult(name=f"seed-{n}", settings={"seed": n}, figures={"Boxes": 10.0 + n}) for n in (0, 1, 2)]
    found = aggregate([RESULTS[0], *runs])
    assert [(row.name, row.settings, row.started) for row in found] == [
        ("scenes-s", {}, 1),
        ("trained", {}, 3),
    ]
    table = settings_table(found, ["Boxes"])
    assert table.columns == ["model", "Boxes"] and table.rows[1] == ["trained", "11.0 (10.0 to 12.0)"]
    assert "3 seeds" in table.note


def test_csv__a_line_a_setting_and_a_line_a_run() -> None:
    settings = list(csv.DictReader(io.StringIO(settings_csv(aggregate(RESULTS)))))
    assert (
        settings[1]["theta"] == "0.1" and settings[1]["Boxes high"] == "13.0" and settings[1]["runs"] == "3"
    )
    runs = list(csv.DictReader(io.StringIO(runs_csv([*RESULTS, RunResult(name="x", error="no, room")]))))
    assert len(runs) == len(RESULTS) + 1 and runs[-1]["error"] == "no, room" and runs[1]["seed"] == "0"


def test_report__files_and_a_page_without_network(tmp_path: Path) -> None:
    spec = Spec(title="Two rows", about="After <nobody>.", grid={"theta": [1]})
    page = write_report(tmp_path, spec, [*RESULTS, RunResult(name="bad", settings={}, error="no room")], [])
    html = page.read_text()
    assert html.count("<svg") == 1 and "&lt;nobody&gt;" in html and "bad: no room" in html
    assert "random" not in html.lower() and "http" not in html
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "table.csv", "table.md", "runs.csv"}
    assert "Boxes top-5" in (tmp_path / "table.csv").read_text()
    noise = [RunResult(name="r", settings={"theta": 1}, figures={"Boxes": 3.0}, random_weights=True)]
    assert "Random weights" in write_report(tmp_path, spec, noise, []).read_text()
    assert "12.0 (11.0 to 13.0)" in summary(RESULTS, [], title="t")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Eight photos in two shards, and columns that took known seconds."""
    store = Store.create(tmp_path / "store", {"name": "noise", "split": "train", "n": 8}, 32, [4, 4])
    labels = store.add_column("targets", "vitl14", {"target": {"name": "labels"}})
    crops = store.add_column("targets", "crops-vitb16", {"target": {"name": "crops", "views": 4}})
    features = store.add_column("targets", "features-vitl14", {"target": {"name": "features"}})
    relabel = {"target": {"name": "labels"}, "features": features.key}
    columns = [
        (labels, {"decode": 1.0, "wait": 50.0, "prepare": 0.5, "teacher": 1.5}),
        (crops, {"teacher": 8.0}),
        (features, {"teacher": 2.0, "encode": 3.0}),
        (store.add_column("targets", "relabel-vitl14", relabel), {"retrieve": 0.25}),
    ]
    for column, seconds in columns:
        for shard in store.shard_names:
            writer = ShardWriter(column, shard)
            for i in range(4):
                # Four views were asked for, and a photo has two or four.
                stored = {"views": np.arange(2 + 2 * (i % 2))} if column == crops else {"x": np.zeros(1)}
                writer.add(f"{shard}-{i}", {"npz": npz_bytes(stored)})
            writer.commit(seconds=seconds)
    return store


def test_teacher_costs__teachers_once_and_live(store: Store) -> None:
    keys = {column.name: column.key for column in store.columns("targets")}
    runs = [
        ({"labels": keys["vitl14"], "images": store.images.key}, 100),
        ({"labels": keys["vitl14"], "crops": keys["crops-vitb16"]}, 300),
        ({"labels": keys["relabel-vitl14"]}, 60),
    ]
    costs = {cost.column.rpartition("-")[0]: cost for cost in teacher_costs(store, runs)}
    labels = costs["vitl14"]
    # Writing takes some time as well.
    assert labels.stored_seconds == pytest.approx(6, abs=1) and labels.photos_seen == 400
    assert labels.seconds_per_photo == pytest.approx(0.5)
    assert labels.live_seconds == pytest.approx(200)
    # Of three stored views, on average, a live teacher sees one.
    assert costs["crops-vitb16"].seconds_per_photo == pytest.approx(16 / 8 / 3)
    # The P-VLM would have to speak for what was relabelled: its features are charged.
    assert costs["features-vitl14"].live_seconds == pytest.approx(60 * 4 / 8)
    assert costs["relabel-vitl14"].stored_seconds > 0.5 and costs["relabel-vitl14"].live_seconds == 0
    printed = cost_table(list(costs.values()))
    assert printed.rows[-1][-1] == f"{200 + 200 + 30:,.1f}"


def test_teacher_costs__what_was_relabelled_outlives_its_features(store: Store) -> None:
    relabelled, features = (store.find("targets", name) for name in ("relabel-vitl14", "features-vitl14"))
    shutil.rmtree(features.url)
    (cost,) = teacher_costs(store, [({"labels": relabelled.key}, 60)])
    assert cost.column.startswith("relabel-vitl14") and cost.live_seconds == 0
