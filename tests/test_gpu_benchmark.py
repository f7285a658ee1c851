"""The script for a GPU runs on a CPU, so that it does not fail in the few minutes that one is lent."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.py"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def gpu() -> Any:
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_gpu__every_section_gives_figures(gpu, tmp_path) -> None:
    out = tmp_path / "gpu.json"
    report = gpu.main(["--small", "--device", "cpu", "--minutes", "1", "--out", str(out)])
    assert json.loads(out.read_text()) == report
    rows = {name: section["rows"] for name, section in report["sections"].items()}
    assert rows.keys() == gpu.SECTIONS.keys()
    assert all(rows.values())
    [step] = rows["training"]
    assert step["cached / live"] > 0 and step["of the ceiling"] > 0 and "MFU" not in step
    [build] = rows["build"]
    assert build["photos"] == 8 and 0 < build["duty"] <= 2
    assert {"Pillow, 1 threads", "loader, 0 threads"} <= {row["case"] for row in rows["decode"]}
    for row in rows["memory"][:2]:
        assert row["estimated GB"] == pytest.approx(row["measured GB"], rel=0.05)
    assert [row["left out"] for row in (rows["memory"][-1], *rows["tests"])] == ["needs a GPU"] * 2


def test_gpu__says_what_did_not_fit(gpu) -> None:
    limit = gpu.Time(-1)
    assert [fits for _, fits in limit.cases([{"n": 1}, {"n": 2}])] == [False, False]


def test_gpu__marks_a_missed_goal(gpu) -> None:
    row = {"side": 512, "compiled": True, "method": "densevlm", "MFU": 0.3, "of the ceiling": 0.98}
    [[section, case, figures]] = gpu.lines({"training": {"rows": [row]}})
    assert (section, case) == ("training", "512 densevlm compiled")
    assert figures == "MFU 0.3 ! below 0.38, of the ceiling 0.98"
