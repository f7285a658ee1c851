"""Early warnings: each trouble is told once, and a healthy training is told nothing."""

import math
from collections.abc import Iterable

import numpy as np
import pytest

from densecli.train.early_warnings import EarlyWarnings


def watch(
    losses: Iterable[float] = (),
    *,
    norms: Iterable[float] | None = None,
    kept: float = 0.6,
    waited: float = 0.1,
    moved: float | None = 0.01,
    warmup: int = 0,
    total: int = 10_000,
) -> list[str]:
    """All sentences of a training with these rows."""
    losses = list(losses)
    watcher = EarlyWarnings(warmup=warmup, total=total, moved=lambda: moved)
    norms = list(norms) if norms is not None else [1.0] * len(losses)
    said = []
    for step, (loss, norm) in enumerate(zip(losses, norms, strict=True), start=1):
        row = {"step": step, "loss": loss, "grad_norm": norm, "region_kl:labels/kept": kept}
        said += watcher.after(row, seconds=1.0, waited=waited)
    assert sorted(said) == sorted(watcher.said.values())
    return said


def falling(steps: int) -> np.ndarray:
    return np.exp(-np.arange(steps) / 100) + np.random.default_rng(0).normal(0, 0.01, steps)


def test_warnings__of_a_healthy_training_there_are_none() -> None:
    assert watch(falling(400)) == []


@pytest.mark.parametrize("losses", [np.full(300, 0.7), np.random.default_rng(1).normal(0.7, 0.05, 300)])
def test_warnings__a_flat_loss_is_told_once(losses: np.ndarray) -> None:
    (said,) = watch(losses)
    assert "The loss is flat" in said and "--lr" in said


def test_warnings__a_loss_that_is_flat_after_it_has_fallen_has_been_learnt() -> None:
    assert watch([*falling(200), *[0.1] * 300]) == []


def test_warnings__the_warm_up_may_be_flat() -> None:
    assert watch(np.full(90, 0.7), warmup=90) == []


def test_warnings__an_exploding_gradient_is_told_and_a_single_peak_is_not() -> None:
    norms = np.ones(200)
    norms[120] = 500
    assert watch(falling(200), norms=norms) == []
    norms[150:160] = np.geomspace(20, 1e6, 10)
    (said,) = watch(falling(200), norms=norms)
    assert said.startswith("The gradient explodes: its norm is") and "was 1 before" in said


def test_warnings__hardly_any_region_kept() -> None:
    (said,) = watch(falling(100), kept=0.002)
    assert "region_kl:labels/kept is 0.20%" in said and "--theta" in said


def test_warnings__waiting_for_photos() -> None:
    (said,) = watch(falling(100), waited=0.8)
    assert "wait for photos for 80% of the time" in said and "--workers" in said


def test_warnings__weights_that_hardly_move_at_half_of_the_training() -> None:
    (said,) = watch(falling(80), moved=1e-4, total=80)
    assert "by 0.010% of their norm" in said
    assert watch(falling(39), moved=1e-4, total=80) == []
    assert watch(falling(80), moved=None, total=80) == []


def test_warnings__steps_that_are_not_finite_do_no_harm() -> None:
    losses = falling(200)
    losses[60] = math.nan
    norms = np.ones(200)
    norms[60] = math.nan
    assert watch(losses, norms=norms) == []


def paces(seconds: Iterable[float], waited: float = 0.0) -> list[str]:
    watcher = EarlyWarnings(warmup=0, total=10_000, moved=lambda: None)
    steps = zip(falling(400), seconds, strict=False)
    return [
        sentence
        for step, (loss, taken) in enumerate(steps, start=1)
        for sentence in watcher.after(
            {"step": step, "loss": loss, "grad_norm": 1.0}, seconds=taken, waited=waited * taken
        )
    ]


def test_warnings__steps_that_become_slow() -> None:
    (said,) = paces([0.1] * 60 + [0.25] * 60)
    assert "Steps take 2.5 times as long as at first: 0.1 s in the first 50, 0.25 s" in said
    assert "what else runs on this machine" in said
    (said,) = [each for each in paces([0.1] * 60 + [0.25] * 60, waited=0.6) if "as long" in each]
    assert "60% of it is waiting for photos" in said


def test_warnings__slow_steps_now_and_then_are_none() -> None:
    assert paces([*[0.1] * 9, 1.0] * 30) == []
    assert paces([0.1] * 60 + [0.18] * 200) == []


def overfitting(held_out: Iterable[float], losses: Iterable[float]) -> list[str]:
    watcher = EarlyWarnings(warmup=0, total=10_000, moved=lambda: None)
    said = []
    for step, (value, loss) in enumerate(zip(held_out, losses, strict=True), start=1):
        for part in (0, 1):
            row = {"step": 2 * step + part, "loss": loss, "grad_norm": 1.0}
            row |= {"holdout/loss": value} if part else {}
            said += watcher.after(row, seconds=1.0, waited=0.0)
    return said


def test_warnings__a_loss_that_rises_on_held_out_photos_alone() -> None:
    falls, rises = [1.0, 0.8, 0.6, 0.5, 0.4], [1.0, 0.9, 1.0, 1.1, 1.2]
    (said,) = overfitting(rises, falls)
    assert "was 0.9 at step 5 and is 1.2 at step 11, while the loss fell from 0.8 to 0.4" in said
    assert "--keep-best holdout/loss" in said


@pytest.mark.parametrize(
    ("held_out", "losses"),
    [
        ([1.0, 0.9, 1.0, 1.1, 1.2], [1.0, 0.8, 0.9, 1.0, 1.1]),  # both rise
        ([1.0, 0.9, 0.903, 0.902, 0.904], [1.0, 0.8, 0.6, 0.5, 0.4]),  # noise
        ([1.0, 0.9, 1.0, 1.1, 0.8], [1.0, 0.8, 0.6, 0.5, 0.4]),  # it has fallen again
        ([1.0, 0.9, 1.0, 1.1], [1.0, 0.8, 0.6, 0.5]),  # twice only
    ],
)
def test_warnings__a_loss_on_held_out_photos_that_is_no_sign(held_out: list, losses: list) -> None:
    assert overfitting(held_out, losses) == []
