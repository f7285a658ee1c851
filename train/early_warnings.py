"""Early warnings: what the first steps of a training tell about the rest, each in one sentence and once."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from statistics import fmean, median, stdev

from densecli.train.holdout import LOSS, PREFIX

WINDOW = 50
"""Steps that are compared."""
KEPT = 0.01
"""Fewer regions than this share are hardly any."""
EXPLOSION = 10.0
"""A gradient this many times the median of the last steps is exploding..."""
EXPLODED_STEPS = 3
"""... where so many steps in a row are."""
FLAT = 0.005
"""A loss that changes by less than this share is flat, if the change is also within its noise."""
WAITING = 0.5
"""A training that waits for photos for more than this share of its time is held up by them."""
STILL = 1e-3
"""Weights that have moved by less than this share at half of the training hardly move."""
SLOWER = 2.0
"""Steps that take so many times as long as the first ones have become slow."""
RISING = 3
"""A loss on held-out photos rises if it was above its lowest value so many times in a row..."""
RISEN = 0.01
"""... by this share of it, while that on the others went on falling."""
SHORT = 20
"""A training of fewer steps is only tried out: nobody expects its weights to move."""


class EarlyWarnings:
    """Watches the rows of metrics of a training.

    Attributes:
        said: The warnings so far, by what they are about.
    """

    def __init__(self, *, warmup: int, total: int, moved: Callable[[], float | None]) -> None:
        """Begins to watch.

        Args:
            warmup: Steps over which the learning rate rises.
            total: Steps of the training.
            moved: By which share of their norm the weights have moved so far; None if nobody knows.
        """
        self._warmup, self._total, self._moved = warmup, total, moved
        self.said: dict[str, str] = {}
        self._first: list[float] = []
        self._losses: deque[float] = deque(maxlen=WINDOW)
        self._norms: deque[float] = deque(maxlen=WINDOW)
        self._kept: dict[str, deque[float]] = {}
        self._exploded = self._steps = 0
        self._waited = self._seconds = 0.0
        self._first_seconds: list[float] = []
        self._last_seconds: deque[tuple[float, float]] = deque(maxlen=WINDOW)
        self._since: list[float] = []
        self._held_out: list[tuple[int, float, float]] = []

    def after(self, row: Mapping[str, float], *, seconds: float, waited: float) -> list[str]:
        """Looks at a step.

        Args:
            row: Its metrics.
            seconds: How long it took.
            waited: How much of that it waited for its photos.

        Returns:
            The sentences that are new.
        """
        step = int(row["step"])
        found = {
            "gradient": self._gradient(row["grad_norm"], step),
            "kept": self._few_kept(row, step),
            "loss": self._flat(row["loss"], step),
            "photos": self._slow(seconds, waited),
            "pace": self._slower(seconds, waited, step),
            "holdout": self._overfits(row, step),
            "weights": self._still(step),
        }
        new = {about: said for about, said in found.items() if said and about not in self.said}
        self.said |= new
        return list(new.values())

    def _gradient(self, norm: float, step: int) -> str:
        usual = median(self._norms) if len(self._norms) == WINDOW else math.inf
        self._exploded = self._exploded + 1 if norm > EXPLOSION * usual else 0
        if not self._exploded and math.isfinite(norm):
            self._norms.append(norm)
        if self._exploded < EXPLODED_STEPS:
            return ""
        return (
            f"The gradient explodes: its norm is {norm:.3g} at step {step} and was {usual:.3g} before. "
            "Lower --lr, or give a longer --warmup-steps."
        )

    def _few_kept(self, row: Mapping[str, float], step: int) -> str:
        for name, value in row.items():
            if not name.startswith(PREFIX) and name.rpartition("/")[2] in ("kept", "labelled"):
                shares = self._kept.setdefault(name, deque(maxlen=WINDOW))
                shares.append(value)
                if len(shares) == WINDOW and fmean(shares) < KEPT:
                    return (
                        f"Hardly any region is learnt from: {name} is {fmean(shares):.2%} in the last "
                        f"{WINDOW} steps up to step {step}. Lower --theta, or look at the labels with "
                        "densecli preview."
                    )
        return ""

    def _flat(self, loss: float, step: int) -> str:
        if step <= self._warmup or not math.isfinite(loss):
            return ""
        if len(self._first) < WINDOW:
            self._first.append(loss)
            return ""
        self._losses.append(loss)
        # Later than this a loss may well be flat: it has been learnt.
        if len(self._losses) < WINDOW or step > self._warmup + 4 * WINDOW:
            return ""
        before, now = fmean(self._first), fmean(self._losses)
        noise = math.hypot(stdev(self._first), stdev(self._losses)) / math.sqrt(WINDOW)
        if before - now > max(noise, FLAT * abs(before)):
            return ""
        return (
            f"The loss is flat: {before:.4g} in the first {WINDOW} steps after the warm-up, {now:.4g} in the "
            f"last {WINDOW} up to step {step}. Raise --lr, or look at the targets with densecli preview."
        )

    def _slow(self, seconds: float, waited: float) -> str:
        self._seconds, self._waited = self._seconds + seconds, self._waited + waited
        self._steps += 1
        if self._steps < WINDOW or self._waited < WAITING * self._seconds:
            return ""
        return (
            f"Steps wait for photos for {self._waited / self._seconds:.0%} of the time. Give more --workers, "
            "or --cache if the store is remote."
        )

    def _slower(self, seconds: float, waited: float, step: int) -> str:
        """Compares with the first steps of this process: what another machine would take is no promise."""
        if len(self._first_seconds) < WINDOW:
            self._first_seconds.append(seconds)
            return ""
        self._last_seconds.append((seconds, waited))
        # Medians: an epoch's last step is short, and one after a checkpoint is long.
        before, now = median(self._first_seconds), median(taken for taken, _ in self._last_seconds)
        if len(self._last_seconds) < WINDOW or now < SLOWER * before:
            return ""
        share = sum(w for _, w in self._last_seconds) / max(sum(s for s, _ in self._last_seconds), 1e-9)
        why = (
            f"{share:.0%} of it is waiting for photos: give more --workers, or --cache if the store is remote"
            if share > WAITING
            else "look what else runs on this machine, and whether a GPU is throttled"
        )
        return (
            f"Steps take {now / before:.1f} times as long as at first: {before:.3g} s in the first {WINDOW}, "
            f"{now:.3g} s in the last {WINDOW} up to step {step}; {why}."
        )

    def _overfits(self, row: Mapping[str, float], step: int) -> str:
        if math.isfinite(row["loss"]):
            self._since.append(row["loss"])
        if (held_out := row.get(LOSS)) is None or not math.isfinite(held_out) or not self._since:
            return ""
        self._held_out.append((step, held_out, fmean(self._since)))
        self._since = []
        lowest_at, lowest, trained = min(self._held_out, key=lambda each: each[1])
        later = [each for each in self._held_out if each[0] > lowest_at][-RISING:]
        risen = len(later) == RISING and all(value > (1 + RISEN) * lowest for _, value, _ in later)
        if not risen or later[-1][2] > (1 - FLAT) * trained:
            return ""
        return (
            f"The student learns its photos by heart: {LOSS} was {lowest:.4g} at step {lowest_at} and is "
            f"{held_out:.4g} at step {step}, while the loss fell from {trained:.4g} to {later[-1][2]:.4g}. "
            "Train on more photos, or fewer steps; --keep-best "
            f"{LOSS} exports the weights before."
        )

    def _still(self, step: int) -> str:
        if self._total < SHORT or step != self._total // 2:
            return ""
        if (moved := self._moved()) is None or moved >= STILL:
            return ""
        return (
            f"The weights hardly move: by {moved:.3%} of their norm at half of the training. Raise --lr, or "
            "train longer."
        )
