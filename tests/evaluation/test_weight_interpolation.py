"""Weights between before and after: any alpha lies on the line that the export and its beginning fix."""

import json

import pytest
import torch

from densecli.core.errors import DenseCLIError
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.evaluation.weight_interpolation import candidates
from densecli.models.checkpoints import load_model

CPU = torch.device("cpu")


def of_run(run, *alphas):
    return candidates(ModelUnderTest.of_run(str(run)), ModelUnderTest.before_run(str(run)), alphas, CPU)


def moved(candidate):
    """By how much a candidate's weights differ from where they began."""
    began, _ = load_model("scenes-s")
    pairs = zip(candidate.model.clip.state_dict().values(), began.clip.state_dict().values(), strict=True)
    return [(now - then).mean().item() for now, then in pairs if now.is_floating_point()]


def test_candidates__every_alpha_is_on_the_line(moved_run):
    seen = []
    for candidate in of_run(moved_run, 0, 0.25, 0.7, 1):
        seen.append(candidate.title)
        assert moved(candidate) == pytest.approx([0.01 * candidate.alpha] * len(moved(candidate)), abs=1e-6)
    assert seen == ["alpha 0", "alpha 0.25", "alpha 0.7", "alpha 1"]


def test_candidates__without_alphas_the_export_as_it_is(moved_run):
    (candidate,) = of_run(moved_run)
    assert candidate.alpha is None and candidate.title == "scenes-s (trained)"
    assert moved(candidate)[0] == pytest.approx(0.007, abs=1e-6)


def test_candidates__random_weights_are_said():
    (candidate,) = candidates(ModelUnderTest(model="scenes-s", weights="random:0"), None, (), CPU)
    assert candidate.heading == "scenes-s (random weights)"


def test_candidates__a_model_that_is_no_run_s_has_no_alphas():
    with pytest.raises(DenseCLIError, match="only be averaged for the student of a run"):
        next(candidates(ModelUnderTest(model="scenes-s"), None, (0, 1), CPU))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"initial_weights": {"source": "random:1", "sha256": "0"}}, "does not hold"),
        ({"alpha": 0}, "initial weights"),
    ],
)
def test_candidates__what_cannot_be_undone_is_refused(moved_run, change, match):
    card = moved_run / "export" / "card.json"
    card.write_text(json.dumps(json.loads(card.read_text()) | change))
    with pytest.raises(DenseCLIError, match=match):
        next(of_run(moved_run, 0.5))
