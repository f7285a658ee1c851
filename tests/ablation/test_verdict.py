"""Which factor pays: differences of pairs that are alike in everything else, and the bill of its teachers."""

import pytest

from densecli.ablation.runs import RunResult
from densecli.ablation.verdict import Difference, Verdict, verdict_table, verdicts

KL, COSINE, CONTEXT, SPATIAL = "region_kl=1", "region_cosine=1", "context=0.25", "spatial=0.2"
BILLS = {
    "labels": {"pvlm": 39.0},
    "dense": {"vfm": 3.7},
    "refined": {"refiner": 7.8},
    "crops": {"clip": 214.5},
}
READS = {KL: "labels", COSINE: "crops", CONTEXT: "dense", SPATIAL: "refined"}


def grid(*cells: list[str], seeds: int = 3, **given: float) -> list[RunResult]:
    """Runs in which context gives 2 points, spatial nothing, and seeds 1 each."""
    runs = []
    for loss in cells:
        for seed in range(seeds):
            wobble = 0.1 * ((seed + len(loss)) % 2)
            boxes = 60.0 + seed + 2 * (CONTEXT in loss) + wobble
            figures = {"Boxes": boxes, "stuff as thing": 5.0 + 1.0 * (CONTEXT in loss)}
            name = f"{'-'.join(loss)}-{seed}"
            runs.append(RunResult(name=name, settings={"loss": loss, "seed": seed}, figures=figures))
    return runs


def judged(runs: list[RunResult]) -> dict[str, Verdict]:
    columns = {run.name: {entry: READS[entry] for entry in run.settings["loss"]} for run in runs}
    return {each.factor: each for each in verdicts(runs, columns, BILLS)}


def test_verdicts__pair_runs_that_are_alike_in_everything_else():
    found = judged(grid([KL], [KL, CONTEXT], [KL, SPATIAL], [SPATIAL, CONTEXT, KL]))
    assert [*found] == [CONTEXT, SPATIAL]  # added together to one run alone, they are no factor
    context = found[CONTEXT]
    assert context.pairs == 6 and context.differences["Boxes"].mean == pytest.approx(2.0, abs=0.11)
    assert context.better == ["Boxes"] and context.worse == ["stuff as thing"]
    assert context.seconds == 3.7
    assert "pays in part: +2.0 Boxes (±0.0), but +1.0 stuff as thing (±0.0), for 4 s of" in context.sentence
    assert found[SPATIAL].sentence == (
        "spatial=0.2 does not pay: no figure changes by more than chance, for 8 s of teachers."
    )


def test_verdicts__entries_added_together_to_several_runs_are_a_factor():
    both = [CONTEXT, SPATIAL]
    found = judged(grid([KL], [COSINE], [KL, *both], [COSINE, *both]))
    assert [*found] == [f"{CONTEXT} + {SPATIAL}"]
    assert found[f"{CONTEXT} + {SPATIAL}"].seconds == pytest.approx(3.7 + 7.8)


def test_verdicts__failed_runs_and_other_settings_make_no_pair():
    runs = grid([KL], [KL, CONTEXT])
    failed = [RunResult(name=run.name, settings=run.settings, error="no room") for run in runs[:2]]
    (one,) = judged([*failed, *runs[2:]]).values()
    assert one.pairs == 1 and "no verdict from 1 pair of runs" in one.sentence
    lr = [
        RunResult(name=run.name, settings={**run.settings, "lr": i // 3}, figures=run.figures)
        for i, run in enumerate(runs)
    ]
    assert judged(lr) == {}


def test_difference__counts_beyond_twice_its_standard_error():
    # Mean 1, standard error 0.5: exactly at the bound, and just beyond it.
    values = [0.0, 1.0, 2.0]
    bound = 3**0.5
    assert Difference.of(values).error == pytest.approx(1 / bound)
    assert not Difference.of(values).sure
    assert Difference.of([v + 0.16 for v in values]).sure
    assert not Difference.of([1.0, 1.0]).sure


def test_switch__is_a_factor():
    runs = [
        RunResult(
            name=f"{on}-{seed}", settings={"ema": on, "seed": seed}, figures={"mIoU": 40.0 - 3 * on + seed}
        )
        for on in (False, True)
        for seed in range(3)
    ]
    (found,) = verdicts(runs, {run.name: {} for run in runs}, {})
    assert found.sentence == "ema does not pay: -3.0 mIoU (±0.0), for no further teacher."
    assert "+0.0" not in verdict_table([found]).text() and "ema" in verdict_table([found]).markdown()
