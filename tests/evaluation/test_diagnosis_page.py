"""The page of a diagnosis holds all it shows, escapes names, and fits a telephone on light and dark paper."""

import re

import numpy as np
import pytest
from PIL import Image

from densecli.core.page import Figure
from densecli.evaluation.diagnosis import Diagnosis, ModelDiagnosis
from densecli.evaluation.diagnosis_page import figures_table, write_diagnosis_page
from densecli.evaluation.photo_pictures import PhotoPictures


def model(**given) -> ModelDiagnosis:
    facts = {
        "weights": "w.pt",
        "random_weights": False,
        "coupling_ratio_mean": 1.5,
        "coupling_ratio_median": 1.25,
        "proxy_scores": (1.0, 2.0, 3.0, 4.0),
        "regions": None,
    }
    return ModelDiagnosis(**{**facts, **given})


def diagnosis(key="photo.jpg", **models) -> Diagnosis:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (600, 350, 3), np.uint8))
    figures = [
        Figure(title=f"Similarity to {key}", image=picture, alt=key, width=350, photo=True) for _ in range(3)
    ]
    return Diagnosis(
        models=models or {"before": model(), "after": model(proxy_scores=(1.0, 1.0, 1.5, 2.5))},
        photos=[PhotoPictures(key=key, figures=figures, readings={})] * 2,
        measured_photos=9,
        notes=["One photo is left out."],
    )


def written(tmp_path, found):
    return write_diagnosis_page(
        tmp_path / "out", "Diagnosis of m", found, read_out="canvas 96 px", note="A note."
    )


def test_figures_table__a_column_for_each_model():
    table = figures_table(diagnosis())
    assert table.columns == ["", "before", "after"]
    assert [row[1:] for row in table.rows] == [["1.500", "1.500"], ["1.250", "1.250"], ["3.500", "2.000"]]
    unsure = diagnosis(before=model(random_weights=True), after=model())
    assert figures_table(unsure).columns == ["", "before (random weights)", "after"]
    bare = model(coupling_ratio_mean=None, coupling_ratio_median=None, proxy_scores=())
    assert [row[1:] for row in figures_table(diagnosis(m=bare)).rows] == [["-"]] * 3


def test_page__refers_to_nothing_outside(tmp_path):
    html = written(tmp_path, diagnosis()).read_text()
    sources = re.findall(r'(?:src|href|url)\s*[=(]\s*"?([^"\s)>]+)', html)
    assert len(sources) > 6 and all(source.startswith(("data:", "#")) for source in sources)
    assert "http" not in re.sub(r"data:[^\"]*", "", html)
    assert html.count("data:image/jpeg") == 6 and "One photo is left out." in html and "A note." in html


def test_page__random_weights_stand_in_the_warning(tmp_path):
    html = written(tmp_path, diagnosis(m=model(random_weights=True))).read_text()
    assert "Random weights" in html and "A note." not in html


@pytest.mark.parametrize("key", ["<script>alert(1)</script>", '"><img src=x>', "n" * 5000])
def test_page__names_are_escaped_and_bounded(tmp_path, key):
    html = written(tmp_path, diagnosis(key)).read_text()
    assert "<script" not in html and "<img src=x" not in html and "n" * 2001 not in html


def test_page__on_a_telephone_no_long_name_widens_it(tmp_path, on_a_telephone):
    [(width, _)] = on_a_telephone([written(tmp_path, diagnosis("a" * 300))], "light")
    assert width == 390


@pytest.mark.parametrize(("scheme", "dark"), [(0, True), (1, False)])
def test_page__follows_the_readers_colours(tmp_path, screenshot, scheme, dark):
    page = written(tmp_path, diagnosis())
    seen = screenshot(page, 1200, 700, f"--blink-settings=preferredColorScheme={scheme}").astype(int)
    paper, ink = np.median(seen, axis=(0, 1)).mean(), seen[:120, :600].mean(2)
    assert (paper < 60) == dark
    # The title is far from the paper in lightness.
    assert np.abs(ink - paper).max() > 150
