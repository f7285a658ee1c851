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
    assert "build" in out.with_suffix(".txt").read_text()
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


def test_gpu__says_which_goals_are_met(gpu) -> None:
    row = {"side": 512, "compiled": True, "method": "densevlm", "MFU": 0.3, "of the ceiling": 0.98, "GB": 2.0}
    found = gpu.lines({"training": {"rows": [row]}})
    assert found == [
        [
            "training",
            "512 densevlm compiled",
            "MFU 0.3 (goal 0.38 is missed), of the ceiling 0.98 (goal 0.97 is met), GB 2",
        ]
    ]
    assert gpu.goals(found) == "Goals met: 1 of 2."


def test_gpu__a_case_that_fails_is_named_and_the_next_one_begins(gpu, monkeypatch, tmp_path) -> None:
    from gpu_cases import attempted

    def failing(args: Any, limit: Any) -> Any:
        yield attempted({"case": "first"}, lambda: {"x": 1 / 0})
        yield attempted({"case": "second"}, lambda: {"x": 1.0})

    monkeypatch.setitem(gpu.SECTIONS, "training", (failing, 1))
    out = tmp_path / "gpu.json"
    gpu.main(["--small", "--device", "cpu", "--sections", "training", "--out", str(out)])
    assert json.loads(out.read_text())["sections"]["training"]["rows"] == [
        {"case": "first", "left out": "ZeroDivisionError: division by zero"},
        {"case": "second", "x": 1.0},
    ]


def test_gpu__what_is_known_is_written_before_a_section_ends(gpu, monkeypatch, tmp_path) -> None:
    """A section runs in a process of its own; one that dies leaves what it has written."""
    script = tmp_path / "section.py"
    script.write_text("""
import json, sys
with open(sys.argv[sys.argv.index("--only") + 1], "a") as out:
    out.write(json.dumps({"case": "first", "x": 1.0}) + "\\n" + '{"case": "sec')
raise SystemExit("the GPU is gone")
""")
    monkeypatch.setattr(gpu, "__file__", str(script))
    out = tmp_path / "gpu.json"
    gpu.main(["--device", "cpu", "--sections", "memory", "--out", str(out), "--minutes", "1"])
    assert json.loads(out.read_text())["sections"]["memory"]["rows"] == [
        {"case": "first", "x": 1.0},
        {"case": "the rest", "left out": "the GPU is gone"},
    ]
