"""Whether more data pays: figures over the number of photos, a fitted curve, and ten times the photos."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

import numpy as np

from densecli.ablation.aggregate import SEED, SeedAggregate, digits
from densecli.ablation.power_law import BAND, FEWEST_SIZES, Fit, fit, why_not
from densecli.ablation.runs import RunResult
from densecli.ablation.spec import Spec
from densecli.core.charts import WIDTH, Curve, Measured, curve_chart
from densecli.core.errors import DenseCLIError
from densecli.core.metrics import METRICS
from densecli.core.page import Figure, Section, Table
from densecli.core.tables import counted

Same = Literal["steps", "epochs"]
SHARE = "photos-share"
FACTOR = 10
"""How many times the photos of the store the curve is followed to."""
MEANING: Mapping[Same, str] = {
    "steps": "Every size is trained for the same number of steps, so photos of a smaller one come more "
    "often. This answers whether more photos pay at the same training time.",
    "epochs": "Every size is trained for the same number of epochs, so a smaller one takes fewer steps. This "
    "answers what a smaller store gives where each photo is seen as often; part of the difference is that "
    "of fewer steps.",
}
NOTHING = "There is no curve: no run has figures."
_POINTS = 60
"""Points of a drawn curve."""


@dataclass(frozen=True, kw_only=True)
class ScalingCurve:
    """One figure over the number of photos.

    Attributes:
        heading: The figure.
        figures: Those of the seeds by number of photos, the smallest number first.
        fit: The curve of the error; None if the points do not determine one.
        reason: Why there is none.
    """

    heading: str
    figures: Mapping[float, Sequence[float]]
    fit: Fit | None
    reason: str = ""

    @property
    def _higher(self) -> bool:
        return self.heading not in METRICS or METRICS[self.heading].higher_is_better

    def figure(self, error: Any) -> Any:
        """The figure of an error, or the error of a figure."""
        return full_scale(self.heading) - error if self._higher else error

    @property
    def photos(self) -> float:
        """The largest number of photos."""
        return max(self.figures)

    @property
    def at_ten_times(self) -> SeedAggregate | None:
        """The figure with `FACTOR` times the photos and its band, by the curve."""
        if self.fit is None:
            return None
        ends = sorted((float(self.figure(self.fit.low[-1])), float(self.figure(self.fit.high[-1]))))
        return SeedAggregate(float(self.figure(self.fit.law.at(FACTOR * self.photos))), *ends)

    @property
    def sentence(self) -> str:
        """What the curve says of more photos."""
        if (there := self.at_ten_times) is None or self.fit is None:
            return f"{self.heading}: no curve. {self.reason}"
        places = digits(self.heading)
        now = float(self.figure(self.fit.law.at(self.photos)))
        less, more = self.fit.gain
        law, (slow, fast) = self.fit.law, self.fit.exponent
        end = float(self.figure(law.a))
        return (
            f"{self.heading}: {FACTOR} times the photos ({FACTOR * self.photos:,.0f}) would give "
            f"{there.text(places)} in place of {now:.{places}f}, better by {less:.{places}f} to "
            f"{more:.{places}f}. The exponent is {law.c:.2f} ({slow:.2f} to {fast:.2f}), and the curve "
            f"ends at {end:.{places}f}."
        )

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        there = self.at_ten_times
        found: dict[str, Any] = {
            "heading": self.heading,
            "figures": [{"photos": n, "seeds": list(values)} for n, values in self.figures.items()],
            "fit": None,
            "reason": self.reason,
        }
        if self.fit is not None and there is not None:
            law = self.fit.law
            found["fit"] = {
                "error": {"a": law.a, "b": law.b, "c": law.c, "unit": law.unit},
                "exponent_band": list(self.fit.exponent),
                "extrapolated": {"photos": FACTOR * self.photos, **there._asdict()},
                "improvement_band": list(self.fit.gain),
                "band": BAND,
            }
        return found


def full_scale(heading: str) -> float:
    """The best value that a figure can have where higher is better."""
    return 100.0 if heading not in METRICS or METRICS[heading].percent else 1.0


def parse_shares(text: str) -> list[float]:
    """The shares in a text such as 1/16,1/4,1, the smallest first. Raises DenseCLIError."""
    try:
        shares = sorted({float(Fraction(word.strip())) for word in text.split(",")})
    except (ValueError, ZeroDivisionError):
        shares = [0.0]
    if not all(0 < share <= 1 for share in shares):
        raise DenseCLIError(
            f"--shares {text} is no list of shares of the photos.", hint="Write --shares 1/16,1/8,1/4,1/2,1."
        )
    return shares


def parse_seeds(text: str) -> list[int]:
    """The seeds in a text such as 0,1,2. Raises DenseCLIError."""
    try:
        return list(dict.fromkeys(int(word) for word in text.split(",")))
    except ValueError:
        raise DenseCLIError(f"--seeds {text} is no list of seeds.", hint="Write --seeds 0,1,2.") from None


def scaling_spec(
    spec: Spec, *, shares: Sequence[float] | None, seeds: Sequence[int] | None, length: Mapping[str, int]
) -> Spec:
    """The ablation that trains on each share of the photos.

    Args:
        spec: How to train and evaluate; its grid has shares and seeds at most.
        shares: In place of those of the grid.
        seeds: In place of those of the grid.
        length: The length of the trainings: max-steps or epochs.

    Raises:
        DenseCLIError: The grid has other flags, or there are no shares.
    """
    if strays := [flag for flag in spec.grid if flag not in (SHARE, SEED)]:
        raise DenseCLIError(
            f"The spec varies {', '.join(strays)}, and scaling varies {SHARE} and {SEED} alone.",
            hint="Choose one value of each and write it under [train], or run densecli ablate.",
        )
    grid = {SHARE: list(shares or spec.grid.get(SHARE, ())), SEED: list(seeds or spec.grid.get(SEED, (0,)))}
    if not grid[SHARE]:
        raise DenseCLIError(f"The spec has no {SHARE} in its grid.", hint="Give --shares 1/16,1/8,1/4,1/2,1.")
    others = {"max-steps", "epochs", "seen-samples", SHARE, SEED} - length.keys()
    train = {flag: value for flag, value in spec.train.items() if flag not in others}
    # Each step has as many photos, whatever the size.
    return replace(spec, train={**train, **length, "drop-last": True}, grid=grid)


def check_sizes(photos: Mapping[tuple[float, int], int], samples_per_step: int) -> None:
    """Raises DenseCLIError if the smallest subset has fewer photos than a step, or two have the same photos.

    Args:
        photos: Number of photos by share and seed.
        samples_per_step: Photos of a step.
    """
    (share, seed), fewest = min(photos.items(), key=lambda each: each[1])
    if fewest < samples_per_step:
        raise DenseCLIError(
            f"A share of {share:g} has {fewest} photos with seed {seed}, fewer than a step: "
            f"{samples_per_step}.",
            hint="Give larger --shares, or a smaller batch-size in the spec.",
        )
    seen: dict[tuple[int, int], float] = {}
    for (share, seed), count in photos.items():
        # One lies inside the other.
        if (other := seen.setdefault((seed, count), share)) != share:
            raise DenseCLIError(
                f"The shares {other:g} and {share:g} are the same {count:,} photos with seed {seed}.",
                hint="Give --shares that differ more.",
            )


def scaling_curves(
    results: Sequence[RunResult], photos: Mapping[tuple[float, int], int], headings: Collection[str]
) -> list[ScalingCurve]:
    """Fits a curve to each figure.

    Args:
        results: The runs, with their share and seed as settings.
        photos: Number of photos by share and seed. Those of one share differ by chance from seed to seed; it
            stands at their mean.
        headings: The figures.
    """
    curves = []
    for heading in headings:
        found: defaultdict[float, list[tuple[int, float]]] = defaultdict(list)
        for run in results:
            if run.settings and heading in run.figures:
                share, seed = float(str(run.settings[SHARE])), int(str(run.settings[SEED]))
                found[share].append((photos[share, seed], run.figures[heading]))
        figures = {
            float(np.mean([n for n, _ in each])): [value for _, value in each]
            for _, each in sorted(found.items())
        }
        curve = ScalingCurve(heading=heading, figures=figures, fit=None)
        errors = {n: [float(curve.figure(value)) for value in values] for n, values in figures.items()}
        reason = why_not(errors)
        fitted = None if reason else fit(errors, _drawn(figures))
        curves.append(replace(curve, fit=fitted, reason=reason))
    return curves


def _drawn(figures: Mapping[float, Sequence[float]]) -> list[float]:
    """Numbers of photos at which a curve is drawn; the last one is the extrapolation."""
    return [float(n) for n in np.geomspace(min(figures), FACTOR * max(figures), _POINTS)]


def scaling_table(curves: Sequence[ScalingCurve]) -> Table:
    """One row for each size, and one for the extrapolation."""
    sizes = sorted({n for curve in curves for n in curve.figures})
    rows = []
    for n in sizes:
        cells = [
            SeedAggregate.of(curve.figures[n]).text(digits(curve.heading)) if n in curve.figures else "-"
            for curve in curves
        ]
        rows.append([f"{n:,.0f}", *cells])
    if any(curve.fit for curve in curves):
        ends = [
            there.text(digits(curve.heading)) if (there := curve.at_ten_times) else "-" for curve in curves
        ]
        rows.append([f"{FACTOR * sizes[-1]:,.0f} (extrapolated)", *ends])
    seeds = max((len(values) for curve in curves for values in curve.figures.values()), default=0)
    note = f"Mean (lowest to highest) of {counted(seeds, 'seed')}, each with photos of its own."
    if any(curve.fit for curve in curves):
        note += (
            f" The extrapolation is an estimate; its range holds it with a probability of {BAND:.0%} if the "
            "error goes on as a saturating power law, a + b * photos^-c."
        )
    return Table(
        title="Figures by number of photos",
        columns=["photos", *(curve.heading for curve in curves)],
        rows=rows,
        note=note,
    )


def scaling_figure(curve: ScalingCurve) -> Figure:
    """The points of a figure, its curve, the band, and the extrapolated point."""
    points = []
    for n, values in curve.figures.items():
        points.append(Measured(f"{n:.0f}", *SeedAggregate.of(values)))
    drawn = None
    if curve.fit is not None:
        ends = np.sort([curve.figure(curve.fit.low), curve.figure(curve.fit.high)], axis=0)
        middle = curve.figure(curve.fit.law.at(curve.fit.photos))
        drawn = Curve(curve.fit.photos.tolist(), middle.tolist(), *ends.tolist())
    metric, places = METRICS.get(curve.heading), digits(curve.heading)
    told = [f"{n:,.0f} photos: {SeedAggregate.of(each).text(places)}" for n, each in curve.figures.items()]
    if (there := curve.at_ten_times) is not None:
        told.append(f"{FACTOR * curve.photos:,.0f} photos, extrapolated: {there.text(places)}")
    return Figure(
        title=curve.heading,
        image=curve_chart(points, drawn, x_label="photos", y_label=metric.label if metric else curve.heading),
        alt="; ".join(told),
        note=curve.sentence,
        width=WIDTH,
    )


def scaling_section(curves: Sequence[ScalingCurve], same: Same) -> Section:
    """The section of a page about whether more data pays."""
    if not curves:
        return Section(title="Does more data pay?", text=[MEANING[same], NOTHING])
    return Section(
        title="Does more data pay?",
        text=[
            MEANING[same],
            f"{FEWEST_SIZES} sizes at least make a curve; it is an extrapolation, not a promise.",
        ],
        parts=[scaling_table(curves), *(scaling_figure(curve) for curve in curves if curve.figures)],
    )


def scaling_text(curves: Sequence[ScalingCurve], same: Same) -> str:
    """The same for a terminal."""
    if not curves:
        return f"{MEANING[same]}\n\n{NOTHING}"
    sentences = "\n".join(curve.sentence for curve in curves)
    return f"{MEANING[same]}\n\n{scaling_table(curves).text()}\n\n{sentences}"
