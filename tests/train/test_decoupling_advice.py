"""The rule for beta: by how far a P-VLM's stuff is below its things."""

import pytest

from densecli.train.decoupling_advice import BIASED, FAR, UNBIASED, advice, advice_before_measuring, is_pvlm


@pytest.mark.parametrize(
    ("boxes", "stuff", "gap", "rule"),
    [
        (75.2, 44.5, "30.7 points below", BIASED),  # DenseVLM's P-VLM, table 1
        (80.0, 80.0 - FAR, "10.0 points below", BIASED),
        (80.0, 70.1, "9.9 points below", UNBIASED),
        (79.9, 83.3, "3.4 points above", UNBIASED),
    ],
)
def test_advice__depends_on_the_gap_alone(boxes, stuff, gap, rule) -> None:
    found = advice(boxes, stuff)
    assert gap in found and rule in found
    assert sum(each in found for each in (BIASED, UNBIASED)) == 1


def test_advice_before_measuring__names_the_command_and_both_rules() -> None:
    found = advice_before_measuring("vitl14")
    assert "evaluate --student vitl14" in found and BIASED in found and UNBIASED in found


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("vitl14", True),
        ("vit-l14-336", True),
        ("vitb16", False),
        ("siglip-b16", False),
        ("scenes-pvlm", True),
        ("scenes-l", True),
        ("scenes-s", False),
        ("scenes-s-clipself", False),
    ],
)
def test_is_pvlm__is_larger_than_a_student(model: str, expected: bool) -> None:
    assert is_pvlm(model) == expected
