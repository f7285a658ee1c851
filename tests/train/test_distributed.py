"""Several processes, or several batches before a step, are one process with the larger batch."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from torchruns import torchrun
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.refiner import RefinerConfig, make_refiner_trainer

pytestmark = pytest.mark.slow

STEPS = 5  # of 2 steps an epoch, the second one smaller
LENGTH = {"max_steps": STEPS, "checkpoint_every": 2, "workers": 0}
TERMS = {
    "region_kl": {},
    "region_kl, groups": {"losses": {"region_kl": 1.0}, "reduction": "groups"},
    "region_text": {},
    "region_cosine": {},
    "context": {},
    "spatial": {},
    "spatial:gram": {},
    "all": {
        "losses": {
            "region_kl": 1.0,
            "region_text": 0.5,
            "region_cosine": 1.0,
            "context": 0.25,
            "spatial:self": 0.2,
        },
        "holdout": 0.3,
        "evaluate_every": 2,
        "keep_best": "holdout/cosine",
    },
    "declip": {"method": "declip"},
    "feature-kd": {"method": "feature-kd", "alpha": 1.0},
    # No loss depends on the last block's values and output.
    "context of queries": {"losses": {"context:gram": 1.0}, "mode": "qq"},
}

# What every process of torchrun does: each run of argv[1], and the weights it ends with in its own file.
CODE = """
import json, sys
import torch
from densecli.core.distributed import joined_processes
from densecli.core.errors import DenseCLIError
from densecli.train.refiner import RefinerConfig, make_refiner_trainer
from densecli.train.distillation import TrainConfig, make_trainer
torch.set_num_threads(1)
with joined_processes("cpu") as processes:
    for name, (kind, settings) in json.loads(sys.argv[1]).items():
        refiner = (make_refiner_trainer, RefinerConfig)
        made, config = refiner if kind == "refiner" else (make_trainer, TrainConfig)
        trainer = made(config(**settings), processes)
        trainer.fit()
        torch.save(trainer.model.state_dict(), f"{settings['run']}-{processes.rank}.pt")
"""


def settings_of(store: str, run: Path, **settings) -> dict:
    return run_settings(store, run, **{**LENGTH, "lanes": 2, "theta": 0.5, "spatial_side": 3, **settings})


def refiner_of(store: str, run: Path, **settings) -> dict:
    return run_settings(store, run, **{**LENGTH, "lanes": 2, "crops": 2, **settings})


def losses_of(name: str) -> dict:
    return TERMS[name] or {"losses": {name: 1.0}}


@pytest.fixture(scope="module")
def two_processes(full_store, tmp_path_factory) -> Path:
    """The folder of the runs, and of what each of two processes ended with."""
    folder, store = tmp_path_factory.mktemp("processes"), full_store.store.root
    runs = {
        name: ("train", settings_of(store, folder / name, batch_size=3, **losses_of(name))) for name in TERMS
    }
    runs["refiner"] = ("refiner", refiner_of(store, folder / "refiner", batch_size=3))
    # What one process began: a step is of the same samples.
    runs["grown"] = ("train", settings_of(store, folder / "grown", batch_size=3, **losses_of("region_kl")))
    begun = {**runs["grown"][1], "batch_size": 6}
    train(TrainConfig(**begun))
    forget_the_end(folder / "grown")
    # 2 processes of 5: the second has nothing of the last sample of 11.
    runs["one left"] = ("train", settings_of(store, folder / "one left", batch_size=5))
    script = folder / "process.py"
    script.write_text(CODE)
    torchrun(script, json.dumps(runs))
    return folder


def forget_the_end(run: Path) -> None:
    (run / "checkpoints" / f"step-{STEPS:08d}.pt").unlink()


def state_of(folder: Path, name: str, rank: int = 0) -> dict[str, torch.Tensor]:
    return torch.load(folder / f"{name}-{rank}.pt", weights_only=True)


def assert_equals_one_process(kind: str, settings: dict, run: Path, ended: dict[str, torch.Tensor]) -> None:
    """Whether `run`, which ended with these weights, is that of one process with `settings`."""
    one = (
        make_refiner_trainer(RefinerConfig(**settings))
        if kind == "refiner"
        else make_trainer(TrainConfig(**settings))
    )
    began = {name: tensor.clone() for name, tensor in one.model.state_dict().items()}
    one.fit()
    ours, theirs = rows(run), rows(Path(settings["run"]))
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=2e-4, abs=1e-5)
    for name, tensor in one.model.state_dict().items():
        moved, difference = tensor - began[name], ended[name] - tensor
        if name.endswith("in_proj_bias"):
            # The gradient of a key's bias is 0 but for rounding, of which AdamW makes steps like any other.
            width = len(tensor) // 3
            difference[width : 2 * width] = 0
        assert difference.norm() <= 0.01 * moved.norm(), name


@pytest.mark.parametrize("name", [*TERMS, "refiner", "one left"])
def test_processes__end_with_the_very_same_weights(two_processes, name: str) -> None:
    first, second = (state_of(two_processes, name, rank) for rank in (0, 1))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", TERMS)
def test_processes__two_equal_one_with_the_doubled_batch(
    full_store, two_processes, tmp_path, name: str
) -> None:
    settings = settings_of(full_store.store.root, tmp_path, batch_size=6, **losses_of(name))
    assert_equals_one_process("train", settings, two_processes / name, state_of(two_processes, name))


def test_processes__two_train_the_refiner_of_one(full_store, two_processes, tmp_path) -> None:
    settings = refiner_of(full_store.store.root, tmp_path, batch_size=6)
    assert_equals_one_process(
        "refiner", settings, two_processes / "refiner", state_of(two_processes, "refiner")
    )


def test_processes__one_has_no_sample_of_the_last_batch(full_store, two_processes, tmp_path) -> None:
    settings = settings_of(full_store.store.root, tmp_path, batch_size=10)
    assert_equals_one_process(
        "train", settings, two_processes / "one left", state_of(two_processes, "one left")
    )


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("kind", ["train", "refiner"])
def test_accumulate__equals_the_larger_batch(full_store, tmp_path, kind: str, drop_last: bool) -> None:
    """Of 11 samples, batches of 2, three before a step; the last step has two and a half, or is left out."""

    def given(run: str, **settings) -> dict:
        make, losses = (refiner_of, {}) if kind == "refiner" else (settings_of, losses_of("all"))
        return make(full_store.store.root, tmp_path / run, drop_last=drop_last, **losses, **settings)

    made, config = (make_refiner_trainer, RefinerConfig) if kind == "refiner" else (make_trainer, TrainConfig)
    trainer = made(config(**given("parts", batch_size=2, accumulate=3)))
    assert trainer.steps.per_epoch == (1 if drop_last else 2)
    trainer.fit()
    whole = given("whole", batch_size=6)
    assert_equals_one_process(kind, whole, tmp_path / "parts", trainer.model.state_dict())


def test_processes__two_go_on_with_what_one_began(two_processes) -> None:
    ours, theirs = rows(two_processes / "grown"), rows(two_processes / "region_kl")
    assert json.loads((two_processes / "grown" / "config.json").read_text())["ranks"] == 2
    assert len(ours) == STEPS
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=2e-4)


def test_processes__one_goes_on_with_what_two_began(full_store, two_processes, tmp_path) -> None:
    store, run = full_store.store.root, tmp_path / "run"
    shutil.copytree(two_processes / "region_kl", run)
    forget_the_end(run)
    train(TrainConfig(**settings_of(store, run, batch_size=2, accumulate=3, **losses_of("region_kl"))))
    ours, theirs = rows(run), rows(two_processes / "region_kl")
    assert ours[:4] == theirs[:4] and len(ours) == STEPS
    assert ours[4] == pytest.approx(theirs[4], rel=2e-4)
    with pytest.raises(DenseCLIError, match="samples_per_step 6 -> 12"):
        train(TrainConfig(**settings_of(store, run, batch_size=12, **losses_of("region_kl"))))


def test_processes__an_error_of_the_first_is_everybodys(tmp_path) -> None:
    code = """
import json, sys
from densecli.core.errors import DenseCLIError
from densecli.core.distributed import joined_processes
def fail():
    raise DenseCLIError("no", hint="yes")
with joined_processes("cpu") as processes:
    assert processes.on_rank_zero(lambda: processes.rank) == 0
    assert processes.max(processes.rank) == 1
    assert processes.gather(processes.rank) == [0, 1]
    try:
        processes.on_rank_zero(fail)
    except DenseCLIError as error:
        assert (str(error), error.hint) == ("no", "yes")
    else:
        raise AssertionError("it went on")
"""
    script = tmp_path / "process.py"
    script.write_text(code)
    torchrun(script, "")
