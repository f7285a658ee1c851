"""Tables, plots and the bill of an ablation."""

import csv
import io
import shutil
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from densecli.ablation.aggregate import bill_table, markdown, overview, rows, rows_csv, runs_csv
from densecli.ablation.line_chart import axis, chart
from densecli.ablation.report import summary, write_outcome
from densecli.ablation.runs import Done
from densecli.ablation.spec import Spec
from densecli.ablation.teacher_cost import bill
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter, npz_bytes

DONE = [
    Done(name="scenes-s", figures={"Boxes": 25.0}),
    *(
        Done(
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
    found = rows(DONE)
    assert [row.settings for row in found[:3]] == [
        {},
        {"theta": "0.1", "decoupling": "1"},
        {"theta": "0.1", "decoupling": "4"},
    ]
    assert found[1].figures["Boxes"] == (12.0, 11.0, 13.0)
    assert found[1].figures["Boxes"].text() == "12.0 (11.0 to 13.0)"
    assert found[0].figures["Boxes"].text() == "25.0"


def test_overview__a_setting_whose_run_failed_says_so() -> None:
    failed = [*DONE[:-1], Done(name="last", settings=DONE[-1].settings, error="no room")]
    table = overview(rows(failed), ["Boxes"])
    assert table.columns == ["theta", "decoupling", "Boxes"]
    assert table.rows[0] == ["scenes-s", "", "25.0"]
    assert table.rows[-1] == ["0.5 [2 of 3 runs]", "4", "54.5 (54.0 to 55.0)"]
    assert "3 seeds" in table.note
    lines = markdown(table).splitlines()
    assert lines[1] == "| --- | --- | --- |" and len(lines) == 2 + 7


def test_rows__a_grid_of_seeds_alone_is_one_row() -> None:
    runs = [Done(name=f"seed-{n}", settings={"seed": n}, figures={"Boxes": 10.0 + n}) for n in (0, 1, 2)]
    found = rows([DONE[0], *runs])
    assert [(row.name, row.settings, row.of) for row in found] == [("scenes-s", {}, 1), ("trained", {}, 3)]
    table = overview(found, ["Boxes"])
    assert table.columns == ["model", "Boxes"] and table.rows[1] == ["trained", "11.0 (10.0 to 12.0)"]
    assert "3 seeds" in table.note


def test_csv__a_line_a_setting_and_a_line_a_run() -> None:
    settings = list(csv.DictReader(io.StringIO(rows_csv(rows(DONE)))))
    assert (
        settings[1]["theta"] == "0.1" and settings[1]["Boxes high"] == "13.0" and settings[1]["runs"] == "3"
    )
    runs = list(csv.DictReader(io.StringIO(runs_csv([*DONE, Done(name="x", error="no, room")]))))
    assert len(runs) == len(DONE) + 1 and runs[-1]["error"] == "no, room" and runs[1]["seed"] == "0"


def test_chart__a_point_for_every_setting_and_a_line_for_every_series() -> None:
    found = rows(DONE)
    assert axis([row.settings for row in found if row.settings]) == "theta"
    drawn = ElementTree.fromstring(chart("Boxes", found, {"scenes-s": 25.0}))
    assert len(drawn.findall("polyline")) == 2
    assert len(drawn.findall("circle")) == 3 + 1 and len(drawn.findall("rect")) == 3 + 1
    texts = [text.text for text in drawn.findall("text")]
    assert {"theta", "0.3", "decoupling 1", "scenes-s"} <= set(texts)
    assert "far" not in "".join(ElementTree.fromstring(chart("Boxes", found, {"far": 900.0})).itertext())
    first, second = (
        [float(point.split(",")[0]) for point in line.get("points", "").split()]
        for line in drawn.findall("polyline")
    )
    assert first == second and np.diff(first) == pytest.approx(np.diff(first)[0])


def test_chart__words_stand_beside_each_other_without_a_line() -> None:
    done = [
        Done(name=n, settings={"teacher": n}, figures={"Boxes": value})
        for n, value in (("<a>", 1.0), ("b", 2.0))
    ]
    drawn = ElementTree.fromstring(chart("Boxes", rows(done), {}))
    assert not drawn.findall("polyline") and len(drawn.findall("circle")) == 2


def test_chart__long_values_lose_what_they_share_and_stay_on_the_picture() -> None:
    settings = ["region_cosine=1", *(f"region_cosine=1 spatial:self=0.{i}" for i in range(1, 6))]
    done = [Done(name=s, settings={"loss": s}, figures={"Boxes": float(len(s))}) for s in settings]
    drawn = ElementTree.fromstring(chart("Boxes", rows(done), {}))
    slanting = [text for text in drawn.findall("text") if text.get("transform")]
    assert [text.text for text in slanting] == [
        "region_cosine=1",
        *(f"spatial:self=0.{i}" for i in range(1, 6)),
    ]
    for text in slanting:
        assert float(text.get("x", 0)) > 0.77 * 7 * len(text.text or "")


def test_outcome__files_and_a_page_without_network(tmp_path: Path) -> None:
    spec = Spec(title="Two rows", about="After <nobody>.", grid={"theta": [1]})
    page = write_outcome(tmp_path, spec, [*DONE, Done(name="bad", settings={}, error="no room")], [])
    html = page.read_text()
    assert html.count("<svg") == 1 and "&lt;nobody&gt;" in html and "bad: no room" in html
    assert "random" not in html.lower() and "http" not in html.replace("http://www.w3.org", "")
    assert {path.name for path in tmp_path.iterdir()} == {"index.html", "table.csv", "table.md", "runs.csv"}
    assert "Boxes top-5" in (tmp_path / "table.csv").read_text()
    noise = [Done(name="r", settings={"theta": 1}, figures={"Boxes": 3.0}, random_weights=True)]
    assert "Random weights" in write_outcome(tmp_path, spec, noise, []).read_text()
    assert "12.0 (11.0 to 13.0)" in summary(DONE, [], title="t")


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


def test_bill__teachers_once_and_live(store: Store) -> None:
    keys = {column.name: column.key for column in store.columns("targets")}
    runs = [
        ({"labels": keys["vitl14"], "images": store.images.key}, 100),
        ({"labels": keys["vitl14"], "crops": keys["crops-vitb16"]}, 300),
        ({"labels": keys["relabel-vitl14"]}, 60),
    ]
    charges = {charge.column.rpartition("-")[0]: charge for charge in bill(store, runs)}
    labels = charges["vitl14"]
    # Writing takes some time as well.
    assert labels.once == pytest.approx(6, abs=1) and labels.seen == 400
    assert labels.a_photo == pytest.approx(0.5)
    assert labels.live == pytest.approx(200)
    # Of three stored views, on average, a live teacher sees one.
    assert charges["crops-vitb16"].a_photo == pytest.approx(16 / 8 / 3)
    # The P-VLM would have to speak for what was relabelled: its features are charged.
    assert charges["features-vitl14"].live == pytest.approx(60 * 4 / 8)
    assert charges["relabel-vitl14"].once > 0.5 and charges["relabel-vitl14"].live == 0
    printed = bill_table(list(charges.values()))
    assert printed.rows[-1][-1] == f"{200 + 200 + 30:,.1f}"


def test_bill__what_was_relabelled_outlives_its_features(store: Store) -> None:
    relabelled, features = (store.find("targets", name) for name in ("relabel-vitl14", "features-vitl14"))
    shutil.rmtree(features.url)
    (charge,) = bill(store, [({"labels": relabelled.key}, 60)])
    assert charge.column.startswith("relabel-vitl14") and charge.live == 0
