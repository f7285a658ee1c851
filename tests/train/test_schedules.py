"""Every schedule warms up to the peak and is a pure function of the step."""

import pytest

from densecli.core.errors import DenseCLIError
from densecli.train.schedules import SCHEDULES

BUILTIN = ["constant", "cosine", "linear", "wsd"]


def rates(name: str, warmup_steps: int = 4, total_steps: int = 104) -> list[float]:
    schedule = SCHEDULES[name]
    return [
        schedule(step, peak=1.0, warmup_steps=warmup_steps, total_steps=total_steps)
        for step in range(total_steps)
    ]


@pytest.mark.parametrize("name", BUILTIN)
def test_schedules__warm_up_to_the_peak_and_never_rise_again(name: str) -> None:
    found = rates(name)
    assert found[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert found[4:] == sorted(found[4:], reverse=True) and found[-1] > 0


@pytest.mark.parametrize("name", BUILTIN)
def test_schedules__no_warm_up(name: str) -> None:
    assert rates(name, warmup_steps=0, total_steps=1) == [1.0]


def test_cosine__falls_to_zero() -> None:
    found = rates("cosine")
    assert found[54] == pytest.approx(0.5) and found[-1] < 1e-3


def test_linear__falls_by_the_same_amount_in_every_step() -> None:
    found = rates("linear")
    assert found[54] == 0.5 and found[-1] == pytest.approx(0.01)


def test_constant__stays_at_the_peak() -> None:
    assert set(rates("constant")[4:]) == {1.0}


def test_wsd__decays_in_the_last_fifth() -> None:
    found = rates("wsd", total_steps=100)
    assert set(found[4:81]) == {1.0}
    assert found[90] == 0.5 and found[99] == pytest.approx(0.05)


def test_schedules__a_warm_up_longer_than_what_wsd_leaves() -> None:
    assert rates("wsd", warmup_steps=90, total_steps=100)[89:] == pytest.approx(
        [1.0, *(left / 10 for left in range(10, 0, -1))]
    )


def test_schedules__unknown() -> None:
    with pytest.raises(DenseCLIError, match="no schedule called 'cosin'") as caught:
        SCHEDULES["cosin"]
    assert "cosine" in caught.value.hint
