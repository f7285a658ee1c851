"""A power law of the error: a known law is found within its band, and points that tell none are refused."""

import numpy as np
import pytest

from densecli.ablation.power_law import BAND, EXPONENTS, PowerLaw, fit, least_squares, why_not

SIZES = [60, 120, 240, 480, 960]
LAW = PowerLaw(a=20.0, b=30.0, c=0.5, unit=60.0)


def noisy(law: PowerLaw, deviation: float, seed: int, seeds: int = 3) -> dict[float, list[float]]:
    random = np.random.default_rng(seed)
    return {n: (law.at(n) + deviation * random.normal(size=seeds)).tolist() for n in SIZES}


@pytest.mark.parametrize("law", [LAW, PowerLaw(0.0, 40.0, 0.3, 60.0), PowerLaw(30.0, 10.0, 1.5, 60.0)])
def test_least_squares__finds_a_law_without_noise(law):
    (found,) = least_squares(SIZES, law.at(np.array(SIZES))[None])
    assert found.at(9600) == pytest.approx(float(law.at(9600)), abs=0.15)
    assert found.c == pytest.approx(law.c, rel=0.03)


def test_least_squares__is_the_best_of_a_dense_search():
    random = np.random.default_rng(3)
    errors = LAW.at(np.array(SIZES)) + random.normal(size=(4, len(SIZES))) * 3
    unit = np.exp(np.log(SIZES).mean())
    levels = np.linspace(0, 60, 241)
    for law, y in zip(least_squares(SIZES, errors), errors, strict=True):
        best = min(
            ((levels[:, None, None] + levels[None, :, None] * (np.array(SIZES) / unit) ** -c - y) ** 2)
            .sum(-1)
            .min()
            for c in EXPONENTS[::4]
        )
        assert law.a >= 0 and law.b >= 0
        assert ((law.at(np.array(SIZES)) - y) ** 2).sum() <= best + 1e-9


def test_fit__holds_a_known_law_as_often_as_it_says():
    fits = [fit(noisy(LAW, 0.5, seed), [9600.0]) for seed in range(20)]
    held = [each.low[0] <= LAW.at(9600) <= each.high[0] for each in fits]
    # By chance alone, a band of 90 % holds 14 or fewer of 20 in one case of a hundred.
    assert sum(held) > 20 * BAND - 4
    gain = float(LAW.at(960) - LAW.at(9600))
    assert sum(each.gain[0] <= gain <= each.gain[1] for each in fits) > 20 * BAND - 4


def test_fit__a_noisier_law_has_a_wider_band():
    calm, noisy_one = (fit(noisy(LAW, deviation, 1), [9600.0]) for deviation in (0.1, 1.0))
    assert noisy_one.high[0] - noisy_one.low[0] > 3 * (calm.high[0] - calm.low[0]) > 0
    assert calm.exponent[0] <= calm.law.c <= calm.exponent[1]


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        ({60: [30.0], 120: [28.0], 240: [27.0]}, "at least 4 sizes, not 3"),
        ({n: [30.0, 31.0, 29.0] for n in SIZES}, "flat"),
        ({n: [30.0] for n in SIZES}, "is the same from 60 to 960 photos: the points are flat"),
        ({n: [30.0 + n / 960, 27.0] for n in SIZES}, "rises by 0.47, no more than chance, from 60 to 960"),
        ({60: [30.0], 120: [28.0], 240: [29.0], 480: [26.0]}, "rises by 1 from 120 to 240"),
        ({60: [30.0, 30.2], 120: [35.0, 35.2], 240: [28.0, 28.2], 480: [26.0, 26.2]}, "no power law"),
    ],
)
def test_why_not__says_what_the_points_lack(runs, reason):
    assert reason in why_not(runs)


def test_why_not__a_rise_within_chance_is_none():
    runs = {60: [35.0, 33.0], 120: [30.0, 32.0], 240: [31.2, 31.0], 480: [26.0, 25.0]}
    assert why_not(runs) == ""
