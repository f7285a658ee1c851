"""`--init`: a training that starts from the student of another run."""

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from training import run_settings

from densecli.commands.train import train as command
from densecli.commands.train import train_config
from densecli.core.errors import DenseCLIError
from densecli.evaluation.model_under_test import ModelUnderTest
from densecli.models.model_card import run_export
from densecli.models.weights import weights_sha256
from densecli.train.distillation import TrainConfig, make_trainer, train


def config(tiny_store, run: Path, **settings) -> TrainConfig:
    asked = {"max_steps": 2, "weights": None, **settings}
    return TrainConfig(**run_settings(tiny_store.store.root, run, **asked))


@pytest.fixture(scope="module")
def first(tiny_store, tmp_path_factory) -> str:
    """A finished run of scenes-s from random weights."""
    run = tmp_path_factory.mktemp("runs") / "first"
    train(config(tiny_store, run, weights="random:0"))
    return str(run)


def test_init__starts_from_the_exported_student(tiny_store, first, tmp_path) -> None:
    trainer = make_trainer(config(tiny_store, tmp_path / "second", init=first))
    exported = safetensors.torch.load_file(run_export(first)[0])
    found = trainer.recipe.model.network.state_dict()
    assert found.keys() == exported.keys()
    assert all(torch.equal(found[name], exported[name]) for name in found)


def test_init__is_in_the_configuration_and_the_card_and_is_before_the_run(
    tiny_store, first, tmp_path
) -> None:
    second = tmp_path / "second"
    train(config(tiny_store, second, init=first))
    weights, _ = run_export(first)
    resolved, card = json.loads((second / "config.json").read_text()), run_export(second)[1]
    for found in (resolved, card):
        assert found["init"] == first
        assert found["initial_weights"]["source"] == str(weights)
        assert found["initial_weights"]["sha256"] == weights_sha256(weights)
    assert ModelUnderTest.before_run(str(second)).weights == str(weights)


def test_init__random_weights_of_the_first_run_are_still_told(tiny_store, first, tmp_path) -> None:
    result = train(config(tiny_store, tmp_path / "second", init=first))
    assert result["random_weights"] and run_export(tmp_path / "second")[1]["random_weights"]


def test_init__the_student_is_that_of_the_run(tiny_store, first) -> None:
    store = tiny_store.store.root
    found = train_config(command.parse(["--store", store, "--init", first]))
    assert (found.student, found.weights, found.init) == ("scenes-s", None, first)
    named = train_config(command.parse(["--store", store, "--init", first, "--student", "scenes-l"]))
    assert named.student == "scenes-l"


def test_init__a_moved_run_is_continued(tiny_store, first, tmp_path) -> None:
    copy = tmp_path / "copy"
    second = tmp_path / "second"
    train(config(tiny_store, second, init=first))
    Path(first).rename(copy)
    try:
        assert train(config(tiny_store, second, init=str(copy)))["step"] == 2
    finally:
        copy.rename(first)


def test_init__another_mode_is_told(tiny_store, first, tmp_path) -> None:
    same = make_trainer(config(tiny_store, tmp_path / "same", init=first))
    other = make_trainer(config(tiny_store, tmp_path / "other", init=first, mode="qq"))
    assert not [note for note in same.notes if "--mode" in note]
    assert [
        note for note in other.notes if "read its student out as value" in note and "--mode value" in note
    ]


def test_init__what_is_no_start_is_one_sentence(tiny_store, first, tmp_path) -> None:
    def refused(**settings) -> DenseCLIError:
        with pytest.raises(DenseCLIError) as caught:
            make_trainer(config(tiny_store, **{"run": tmp_path / "second", **settings}))
        assert str(caught.value).endswith(".") and caught.value.hint.endswith(".")
        return caught.value

    assert "no exported student" in str(refused(init=str(tmp_path / "nothing")))
    other = refused(init=first, student="scenes-l")
    assert "trained a scenes-s" in str(other) and "--student scenes-s" in other.hint
    assert "Both --init and --weights" in str(refused(init=first, weights="random:0"))
    assert "its own student" in str(refused(init=first, run=first))
