"""densecli plan, from the command line."""

import json
from pathlib import Path

from command_line import passed, refused


def test_plan__takes_the_flags_of_build_shards_and_of_train(tmp_path: Path) -> None:
    def planned(*words: object) -> dict:
        out = tmp_path / "plan.json"
        passed("plan", "--dataset", "scenes", "--limit", 4, "--samples", 2, *words, "--json", out)
        return json.loads(out.read_text())

    declip = planned("--method", "declip", "--epochs", 3)
    assert [t["name"] for t in declip["teachers"]] == ["crops-scenes-s", "scenes-vfm"]
    assert all(t["epoch_tflop"] for t in declip["teachers"]) and declip["epochs"] == 3
    assert declip["student"]["name"] == "scenes-s"

    labels = planned(
        "--teacher", "crops-scenes-l", "--loss", "region_kl=1", "--max-steps", 5, "--batch-size", 8
    )
    assert {t["name"]: t["epoch_tflop"] > 0 for t in labels["teachers"]} == {
        "crops-scenes-l": False,
        "scenes-pvlm": True,
    }
    assert labels["epochs"] == 10
    (rule,) = labels["advice"]
    assert rule.startswith("Labels of scenes-pvlm: ") and not declip["advice"]
    assert [t["name"] for t in planned("--teacher", "scenes-vfm")["teachers"]] == ["scenes-vfm"]
    assert "no method called 'sgd'" in refused("plan", "--dataset", "coco", "--method", "sgd")
    assert planned("--method", "r-sc-v", "--teacher", "features-scenes-pvlm")["epochs"] == 6
