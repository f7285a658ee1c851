"""The page of a training: what it draws of which values."""

import re
from pathlib import Path

import pytest
from finished_run import finished_run

from densecli.train.training_page import curve_figure, write_training_page


def page(run: Path, steps: int = 40, **result: object) -> str:
    values = {**finished_run(run, steps), **result}
    return write_training_page(run, values, ["It moved."]).read_text()


def test_page__has_a_curve_of_every_value(tmp_path: Path) -> None:
    html = page(tmp_path / "run")
    titles = re.findall(r"<figcaption><strong>(.*?)</strong>", html)
    assert titles == [
        *("loss", "region_cosine", "context"),
        "loss",  # of photos held out
        "Masks-S",
        *("kept", "grad_norm", "lr", "images_per_s"),
    ]
    headings = re.findall(r"<h2>(.*?)</h2>", html)
    assert headings == [
        "What changed",
        "Loss",
        "Held-out photos",
        "Regions of annotated photos",
        "Also logged",
    ]
    assert "It moved." in html and "Masks-S, %" in html and "1 region_cosine + 0.25 context" in html
    assert "From 35 to 44." in html and "Dashed: the best, after step 30." in html
    assert "1 value not finite and left out." in html and "Random weights" not in html
    assert "<b>" not in html and "http" not in html


def test_page__of_a_training_without_measurements_has_no_empty_section(tmp_path: Path) -> None:
    html = page(tmp_path / "run", 9, measured={}, best=None, random_weights=True)
    assert re.findall(r"<h2>(.*?)</h2>", html) == ["What changed", "Loss", "Also logged"]
    assert "Random weights" in html


@pytest.mark.parametrize(("steps", "points"), [(3, 1), (25, 5), (1000, 60)])
def test_curve__is_the_mean_of_neighbouring_steps(steps: int, points: int, monkeypatch) -> None:
    seen = []
    monkeypatch.setattr(
        "densecli.train.training_page.history_chart", lambda curve, **_: seen.append(curve) or "<svg/>"
    )
    rows = [{"step": i + 1, "loss": float(i)} for i in range(steps)]
    curve_figure("loss", rows, label="loss")
    [curve] = seen
    assert len(curve.x) == points
    # The weights of the points are their numbers of steps, here the same but for one.
    assert sum(curve.y) / points == pytest.approx((steps - 1) / 2, abs=0.5)
    assert all(low <= y <= high for low, y, high in zip(curve.low, curve.y, curve.high, strict=True))
    assert curve_figure("loss", [{"step": 1, "loss": None}], label="loss") is None
