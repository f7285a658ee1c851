"""A saturating power law of the error over the number of photos, with its uncertainty by the bootstrap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

PARAMETERS = 3
FEWEST_SIZES = PARAMETERS + 1
"""With as many sizes as parameters, any three points would lie on a curve, and nothing would test it."""
BAND = 0.9
"""Probability of the band."""
REPLICATES = 1000
EXPONENTS = np.geomspace(0.05, 4.0, 160)
"""Exponents that are tried. Below the first, a curve is hardly told from a logarithm; above the last, from a
step."""


@dataclass(frozen=True)
class PowerLaw:
    """error = a + b * (photos / unit) ** -c, with a, b >= 0.

    Attributes:
        a: The error that is left with endless photos.
        b: What photos can remove, at `unit` photos.
        c: The exponent.
        unit: A number of photos.
    """

    a: float
    b: float
    c: float
    unit: float

    def at(self, photos: np.ndarray | float) -> np.ndarray:
        """The error with so many photos."""
        error: np.ndarray = self.a + self.b * (np.asarray(photos, float) / self.unit) ** -self.c
        return error


@dataclass(frozen=True, kw_only=True)
class Fit:
    """A fitted power law.

    Attributes:
        law: The law of least squares.
        photos: (p,) numbers of photos at which the band is known.
        low: (p,) lower end of the band of the error.
        high: (p,) upper end.
        gain: Lowest and highest reduction of the error from the largest size to ten times as many photos, by
            the same band.
        exponent: The band of the exponent.
    """

    law: PowerLaw
    photos: np.ndarray
    low: np.ndarray
    high: np.ndarray
    gain: tuple[float, float]
    exponent: tuple[float, float]


def least_squares(photos: Sequence[float], errors: np.ndarray) -> list[PowerLaw]:
    """Fits power laws to errors by least squares, each size with the same weight.

    For a given exponent the law is linear in a and b, and the best nonnegative pair has a closed form: that
    of the plain regression, or with a or b at 0. So the best of `EXPONENTS` is found without iterations.

    Args:
        photos: s different numbers of photos.
        errors: (r, s) float, r sets of errors.

    Returns:
        r laws.
    """
    sizes = np.asarray(photos, float)
    unit = float(np.exp(np.log(sizes).mean()))
    x = (sizes / unit) ** -EXPONENTS[:, None]  # (e, s)
    y = np.asarray(errors, float)[:, None]  # (r, 1, s)
    mean_x, mean_y = x.mean(-1), y.mean(-1)  # (e,), (r, 1)
    around = x - mean_x[:, None]
    b = (around * y).sum(-1) / (around * around).sum(-1)
    a = mean_y - b * mean_x
    steep = np.maximum((x * y).sum(-1) / (x * x).sum(-1), 0)  # the best b where a is 0
    a, b = np.where(a < 0, 0.0, a), np.where(a < 0, steep, b)
    a, b = np.where(b < 0, np.maximum(mean_y, 0), a), np.maximum(b, 0)
    loss = ((a[..., None] + b[..., None] * x - y) ** 2).sum(-1)
    best = loss.argmin(-1)
    rows = np.arange(len(best))
    return [
        PowerLaw(float(one), float(other), float(EXPONENTS[e]), unit)
        for one, other, e in zip(a[rows, best], b[rows, best], best, strict=True)
    ]


def why_not(runs: Mapping[float, Sequence[float]]) -> str:
    """Why no power law can be fitted to errors; empty if one can.

    Chance is judged by twice the standard error of the difference of two means, from the spread of the seeds
    within the sizes; with one seed nothing tells it, so every rise counts.

    Args:
        runs: The errors of the seeds by number of photos.
    """
    if len(runs) < FEWEST_SIZES:
        return f"A curve of {PARAMETERS} parameters needs at least {FEWEST_SIZES} sizes, not {len(runs)}."
    sizes = sorted(runs)
    means = {size: float(np.mean(runs[size])) for size in sizes}
    spread = _spread(runs)

    def chance(one: float, other: float) -> float:
        return 2 * spread * float(np.sqrt(1 / len(runs[one]) + 1 / len(runs[other])))

    for one, other in pairwise(sizes):
        rise = means[other] - means[one]
        if rise > chance(one, other):
            return (
                f"The error rises by {rise:.2g} from {one:,.0f} to {other:,.0f} photos, more than chance: "
                "no power law does."
            )
    fall = means[sizes[0]] - means[sizes[-1]]
    if fall <= chance(sizes[0], sizes[-1]):
        by = (
            f"{'falls' if fall > 0 else 'rises'} by {abs(fall):.2g}, no more than chance,"
            if fall
            else "is the same"
        )
        return (
            f"The error {by} from {sizes[0]:,.0f} to {sizes[-1]:,.0f} photos: the points are flat, and do "
            "not tell what more photos would give."
        )
    return ""


def fit(runs: Mapping[float, Sequence[float]], photos: Sequence[float], *, seed: int = 0) -> Fit:
    """Fits a power law to the means over the seeds, and finds its band.

    The band is that of a bootstrap of two levels. A replicate is the fitted curve, plus for each size a
    residual of a random size (how far the points lie from any such curve), plus for each run the deviation
    of a random run from the mean of its size (how far the seeds lie apart). Both are scaled up for the
    parameters and the means that they were measured against. Chance of the seeds is in both, so the band is
    rather too wide than too narrow. That the law may not hold beyond the largest size, it cannot tell.

    Args:
        runs: The errors of the seeds by number of photos; `why_not` has nothing against them.
        photos: Numbers of photos at which the band is wanted.
        seed: Seed of the bootstrap.
    """
    sizes = np.array(sorted(runs))
    means = np.array([np.mean(runs[size]) for size in sizes])
    (law,) = least_squares(sizes.tolist(), means[None])
    misfit = (means - law.at(sizes)) * np.sqrt(len(sizes) / (len(sizes) - PARAMETERS))
    deviations = _deviations(runs)
    random = np.random.default_rng(seed)
    draws = law.at(sizes) + random.choice(misfit, (REPLICATES, len(sizes)))
    for i, size in enumerate(sizes):
        draws[:, i] += random.choice(deviations, (REPLICATES, len(runs[size]))).mean(-1)
    replicates = least_squares(sizes.tolist(), draws)
    at = np.asarray(photos, float)
    curves = np.array([each.at(at) for each in replicates])
    largest = float(sizes[-1])
    gains = [float(each.at(largest) - each.at(10 * largest)) for each in replicates]
    edges = (0.5 - BAND / 2, 0.5 + BAND / 2)
    low, high = np.quantile(curves, edges, axis=0)
    gain, exponent = np.quantile(gains, edges), np.quantile([each.c for each in replicates], edges)
    return Fit(
        law=law,
        photos=at,
        # The fitted curve is in its own band, however few runs there are.
        low=np.minimum(low, law.at(at)),
        high=np.maximum(high, law.at(at)),
        gain=(float(gain[0]), float(gain[1])),
        exponent=(float(exponent[0]), float(exponent[1])),
    )


def _deviations(runs: Mapping[float, Sequence[float]]) -> np.ndarray:
    """How far each run lies from the mean of its size, scaled up for that mean; 0 where there is one seed."""
    several = [np.asarray(each, float) for each in runs.values() if len(each) > 1]
    scaled = [(each - each.mean()) * np.sqrt(len(each) / (len(each) - 1)) for each in several]
    return np.concatenate(scaled) if scaled else np.zeros(1)


def _spread(runs: Mapping[float, Sequence[float]]) -> float:
    """Standard deviation of the seeds within a size, pooled over the sizes; 0 where there is one seed."""
    return float(np.sqrt((_deviations(runs) ** 2).mean()))
