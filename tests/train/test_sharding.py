"""A model divided among two processes learns what one process learns, and leaves the same files."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import safetensors.torch
import torch
from torchruns import torchrun
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.distillation_recipe import Distillation
from densecli.train.memory import LiveBytes, held_apart, step_bytes, without_values

STEPS = 4  # of 2 steps an epoch, the second one smaller
RUNS: dict[str, dict[str, Any]] = {
    "declip": {"method": "declip"},
    "accumulated": {"method": "densevlm", "batch_size": 1, "accumulate": 3},
    "kept activations": {"method": "densevlm", "activation_checkpointing": False},
    "few blocks": {"method": "feature-kd", "blocks": 2, "loss_options": {"region_cosine.projection": "true"}},
    "compiled": {"method": "densevlm", "compile": True},
}

# What every process of torchrun does: all runs of argv[1]; "again" and "continued" are "declip" once more.
CODE = """
import json, shutil, sys
from pathlib import Path
import torch
from densecli.core.distributed import joined_processes
from densecli.train.distillation import TrainConfig, make_trainer
from densecli.train.sharding import DTensor

torch.set_num_threads(1)
graphs, compiled = [], torch.compile

def counting(graph, inputs):
    graphs.append(graph)
    return graph.forward

torch.compile = lambda f, **given: compiled(f, backend=counting, **given)

def held(tensors):
    tensors = [each for each in tensors if each.ndim]
    assert all(isinstance(each, DTensor) for each in tensors)
    return sum(each.to_local().numel() for each in tensors) / sum(each.numel() for each in tensors)

def begun(run):
    shutil.copytree(run.parent / "declip", run)
    (run / "checkpoints" / "step-00000004.pt").unlink()

with joined_processes("cpu") as processes:
    for settings in json.loads(sys.argv[1]):
        run = Path(settings["run"])
        if run.name == "continued":
            processes.on_rank_zero(lambda: begun(run))
        graphs.clear()
        trainer = make_trainer(TrainConfig(**settings), processes)
        shares = {"weights": held(trainer.model.parameters())}
        step = trainer.optimizer.step
        def stepping():
            step()
            shares["gradients"] = held([p.grad for p in trainer.model.parameters() if p.grad is not None])
            shares["moments"] = held(t for each in trainer.optimizer.state.values() for t in each.values())
        trainer.optimizer.step = stepping
        trainer.fit()
        if processes.first:
            run.with_suffix(".json").write_text(json.dumps({"graphs": len(graphs), "shares": shares}))
"""


def settings_of(store: str, run: Path, **settings: Any) -> dict[str, Any]:
    common = {"max_steps": STEPS, "checkpoint_every": 2, "workers": 0, "lanes": 2, "spatial_side": 3}
    return run_settings(store, run, **{**common, "theta": 0.0, **settings})


def forget_the_end(run: Path) -> None:
    shutil.rmtree(run / "export")
    (run / "checkpoints" / f"step-{STEPS:08d}.pt").unlink()


@pytest.fixture(scope="module")
def divided(full_store, tmp_path_factory) -> Path:
    """The folder of the runs; `grown` is `declip`, begun by one process."""
    folder, store = tmp_path_factory.mktemp("divided"), full_store.store.root
    train(TrainConfig(**settings_of(store, folder / "grown", **RUNS["declip"], batch_size=6)))
    forget_the_end(folder / "grown")
    named = {**RUNS, **dict.fromkeys(("again", "continued", "grown"), RUNS["declip"])}
    runs = [settings_of(store, folder / name, fsdp=True, **given) for name, given in named.items()]
    script = folder / "process.py"
    script.write_text(CODE)
    torchrun(script, json.dumps(runs))
    return folder


def checkpoint(run: Path, step: int = STEPS) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"step-{step:08d}.pt", weights_only=True)


def about(divided: Path, name: str) -> dict[str, Any]:
    return json.loads((divided / f"{name}.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_divided__learns_what_one_process_learns(full_store, divided, tmp_path, name: str) -> None:
    given = {**RUNS[name], "batch_size": 6, "accumulate": 1, "compile": False}
    trainer = make_trainer(TrainConfig(**settings_of(full_store.store.root, tmp_path, **given)))
    before = {key: tensor.clone() for key, tensor in trainer.model.state_dict().items()}
    trainer.fit()
    ours, theirs = rows(divided / name), rows(tmp_path)
    assert len(ours) == len(theirs) == STEPS
    for a, b in zip(ours, theirs, strict=True):
        assert a == pytest.approx(b, rel=2e-4, abs=1e-5)
    mine, other = checkpoint(divided / name), checkpoint(tmp_path)
    assert mine["model"].keys() == other["model"].keys()
    for key, tensor in other["model"].items():
        moved, difference = tensor - before[key], mine["model"][key] - tensor
        if key.endswith("in_proj_bias"):
            # The gradient of a key's bias is 0 but for rounding, of which AdamW makes steps like any other.
            width = len(tensor) // 3
            difference[width : 2 * width] = 0
        assert difference.norm() <= 0.01 * moved.norm(), key
    for number, each in other["optimizer"]["state"].items():
        assert {k: v.shape for k, v in mine["optimizer"]["state"][number].items()} == {
            k: v.shape for k, v in each.items()
        }


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_divided__each_process_holds_half(divided, name: str) -> None:
    assert about(divided, name)["shares"] == pytest.approx(
        dict.fromkeys(("weights", "gradients", "moments"), 0.5), rel=0.05
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", RUNS)
def test_divided__exports_the_whole_student(full_store, divided, tmp_path, name: str) -> None:
    exported = safetensors.torch.load_file(divided / name / "export" / "student.safetensors")
    state = checkpoint(divided / name)["model"]
    trainer = make_trainer(TrainConfig(**settings_of(full_store.store.root, tmp_path, **RUNS[name])))
    prefix = "student.clip." if name == "few blocks" else "clip."
    alpha = trainer.config.alpha
    for key, initial in trainer.recipe.initial.items():
        expected = state[prefix + key]
        if initial.is_floating_point():
            expected = alpha * expected + (1 - alpha) * initial
        torch.testing.assert_close(exported[key], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["again", "continued"])
def test_divided__two_runs_are_bit_equal(divided, name: str) -> None:
    ours, theirs = checkpoint(divided / name)["model"], checkpoint(divided / "declip")["model"]
    assert rows(divided / name) == rows(divided / "declip")
    assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.items())


@pytest.mark.slow
def test_divided__goes_on_with_what_one_process_began_and_the_other_way_round(
    full_store, divided, tmp_path
) -> None:
    run = tmp_path / "shrunk"
    shutil.copytree(divided / "declip", run)
    forget_the_end(run)
    train(TrainConfig(**settings_of(full_store.store.root, run, **RUNS["declip"], batch_size=6)))
    expected = rows(divided / "declip")
    for other in (divided / "grown", run):
        assert len(rows(other)) == STEPS
        for a, b in zip(rows(other), expected, strict=True):
            assert a == pytest.approx(b, rel=2e-4, abs=1e-5)


@pytest.mark.slow
def test_divided__compiled_blocks_share_their_graphs(divided) -> None:
    # One for the first block, whose input needs no gradient, and one for all others.
    assert about(divided, "compiled")["graphs"] == 2
    assert about(divided, "declip")["graphs"] == 0


def test_divided__is_refused_where_it_cannot_be(tiny_store, tmp_path) -> None:
    store = tiny_store.store.root
    with pytest.raises(DenseCLIError, match="there is only one"):
        make_trainer(TrainConfig(**settings_of(store, tmp_path, fsdp=True)))
    with pytest.raises(DenseCLIError, match="cannot be measured while it trains"):
        make_trainer(TrainConfig(**settings_of(store, tmp_path, fsdp=True, holdout=0.3)))
    convolutional: Any = SimpleNamespace(student=object(), config=SimpleNamespace(student="rn50"))
    with pytest.raises(DenseCLIError, match="rn50 has no transformer blocks to divide"):
        Distillation._units(convolutional)


def test_step_bytes__of_a_divided_model_is_without_its_gradients(full_store, tmp_path) -> None:
    settings = settings_of(full_store.store.root, tmp_path, method="declip", activation_checkpointing=True)
    trainer = make_trainer(TrainConfig(**settings))
    recipe, model = trainer.recipe, trainer.model
    [batch] = next(trainer.steps.batches(0))
    estimate = step_bytes(recipe, batch, trainer.precision, without_values(model))
    trained = [p for p in model.parameters() if p.requires_grad]
    for parameter in trained:
        parameter.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    with LiveBytes() as live:
        recipe.loss(recipe.forward(model, batch), batch, recipe.counts(batch))[0].backward()
    # Without values, autograd holds one or two more gradients for a moment.
    largest = max(p.nbytes for p in trained)
    assert live.peak <= estimate <= 1.01 * live.peak + 2 * largest
    assert estimate < step_bytes(recipe, batch, trainer.precision)
    blocks = list(recipe.student.blocks())[:-1]
    whole, block = (sum(p.nbytes for p in each.parameters()) for each in (model, blocks[0]))
    expected = sum(p.nbytes for p in trained) // 4 + whole - len(blocks) * block + 3 * block
    assert held_apart(model, blocks, 4) == expected
