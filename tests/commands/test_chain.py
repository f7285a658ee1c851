"""Commands one after the other, as a user gives them. Builds are without Ray: `tests/pipeline` starts it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from building import without_ray
from command_line import passed, refused, run
from PIL import Image

from densecli.scenes.coco import write_coco

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def here() -> Iterator[None]:
    with without_ray():
        yield


def test_chain__random_weights_are_named_in_every_number(build: list, tmp_path: Path) -> None:
    assert "3 photos; skipped 1" in passed(*build)
    assert "up to date" in passed(*build)
    train = [
        "train", "--store", tmp_path / "store", "--run", tmp_path / "run", "--student", "scenes-s",
        "--weights", "scenes-s=random:1", "--max-steps", 2, "--batch-size", 2,
    ]  # fmt: skip
    assert "planned, steps 1 to 2 (random weights)" in passed(*train, "--dry-run")
    assert not (tmp_path / "run").exists()
    assert "random weights" in passed(*train)
    assert "planned, all 2 steps are done" in passed(*train, "--dry-run")
    rows = [json.loads(row) for row in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]

    write_coco(tmp_path / "world", seed=0, split="test", count=3)
    report = tmp_path / "report.json"
    printed = passed(
        "evaluate", "--data", tmp_path / "world", "--split", "test", "--run", tmp_path / "run",
        "--categories", "scenes", "--json", report, "--report", tmp_path / "report", "--crops",
    )  # fmt: skip
    page = (tmp_path / "report" / "index.html").read_text()
    assert "random weights" in printed and "Random weights" in page
    results = json.loads(report.read_text())
    assert list(results) == ["before", "after", "before, crops", "after, crops"]
    for result in results.values():
        assert result["random_weights"] and result["things"] + result["stuffs"] > 0


def test_store__from_the_plan_to_the_rubbish(build: list, tmp_path: Path) -> None:
    store, out = tmp_path / "store", tmp_path / "out.json"

    def told(*words: object) -> dict:
        passed(*words, "--json", out)
        return json.loads(out.read_text())

    build = [*build, "--teacher", "self-scenes-s", "--weights", "scenes-s=random:0"]
    planned = told("plan", *build[1:], "--student", "scenes-s")
    with without_ray():
        passed(*build)
    described = told("info", "--store", store)
    assert described["complete"] and described["skipped"] == {"not-an-image": 1}
    assert planned["bytes"] == pytest.approx(described["bytes"], rel=0.02)
    assert told("lint", "--store", store)["findings"] == []
    assert told("verify", "--store", store, "--device", "cpu")["verified"]
    shown = ("preview", "1", "--store", store, "--theta", 0.3, "--live", "--device", "cpu")
    told(*shown, "--out", tmp_path / "one.png")
    assert Image.open(tmp_path / "one.png").format == "PNG"
    assert "no sample 7" in refused("preview", "7", "--store", store, "--out", tmp_path / "7.png")

    labels = Path(described["columns"][2]["name"] + "-" + described["columns"][2]["id"])
    tar = store / "targets" / labels / "000000.tar"
    tar.write_bytes(tar.read_bytes()[:-1])
    result = run("lint", "--store", store, "--json", "-")
    assert result.exit_code == 1
    (finding,) = json.loads(result.stdout)["findings"]
    assert "was cut" in finding["trouble"] and "run the build again" in finding["remedy"]

    gc = ("gc", "--store", store, "--runs", tmp_path / "runs", "--keep", "grid-paper", "--min-age", 0)
    assert told(*gc)["items"] == []
    (tmp_path / "store" / "images" / ".000000.tar.7.tmp").touch()
    assert len(told(*gc)["items"]) == len(told(*gc, "--delete")["items"]) == 1
    assert told(*gc)["items"] == []


def test_real_coco__chain_with_published_text_embeddings(shared_data: Path, tmp_path: Path) -> None:
    text = shared_data / "text_embeddings" / "coco_panoptic133_eva_vitb16.npy"
    with without_ray():
        passed(
            "build-shards", "--teacher", "vitb16", "--dataset", "coco", "--data", shared_data / "coco128",
            "--split", "train2017", "--limit", 2, "--canvas", 128, "--store", tmp_path / "store",
            "--categories", 133, "--text-embeddings", text, "--weights", "vitb16=random:0",
        )  # fmt: skip
    passed(
        "train", "--store", tmp_path / "store", "--run", tmp_path / "run", "--weights", "eva02-b16=random:0",
        "--text-embeddings", text, "--max-steps", 1, "--batch-size", 2,
    )  # fmt: skip
    printed = passed(
        "evaluate", "--data", shared_data / "coco128", "--split", "val2017", "--limit", 2,
        "--run", tmp_path / "run", "--text-embeddings", text,
    )  # fmt: skip
    assert "random weights" in printed
