"""Stored targets against the live teacher: the same, another, and damaged ones."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
from building import build_here
from click.testing import CliRunner
from safetensors.torch import save_file

from densecli.cli import main
from densecli.core.errors import DenseCLIError
from densecli.models.checkpoints import load_model
from densecli.pipeline.verify import VerifyConfig, live_target, regions_beside, report, verify
from densecli.shards.joined import read_joined
from densecli.shards.npz import decode_npz
from densecli.shards.quantise import dequantise
from densecli.shards.store import Store
from densecli.shards.tars import read_shard
from densecli.shards.writer import ShardWriter, npz_bytes

TEACHERS = ("scenes-s", "crops-scenes-s", "self-scenes-s", "features-scenes-s", "refiner-scenes-s")
RANDOM = {"scenes-s": "random:0", "refiner-scenes-s": "random:1"}


@pytest.fixture(scope="module")
def pristine(tmp_path_factory):
    return tmp_path_factory.mktemp("verify") / "store"


@pytest.fixture
def built(pristine, tiny, tmp_path):
    """A store of every kind of column that a test may damage."""
    build_here(replace(tiny, store=str(pristine), teachers=TEACHERS, weights=RANDOM, views=1))
    return Store.open(shutil.copytree(pristine, tmp_path / "copy"))


def asked(store, **settings):
    return VerifyConfig(store=store.root, device="cpu", **settings)


def test_verify__every_kind_of_column_holds(built):
    verified = verify(asked(built, samples=4, batch_size=3))
    assert verified["verified"]
    assert {column["name"]: column["samples"] for column in verified["columns"]} == dict.fromkeys(TEACHERS, 4)
    for column in verified["columns"]:
        assert column["random_weights"] and column["figures"]
        for figure in column["figures"].values():
            # The same machine, the same release: not more than rounding in other batches.
            assert figure["live"] <= figure["recorded"] + 1e-4
    assert "self-scenes-s" in report(verified)


def swap_targets(column):
    """Each photo of the second shard gets what was said of the next one."""
    samples = [(key, decode_npz(parts["npz"])) for key, parts in read_shard(column, "000001")]
    receipt = column.receipt("000001")
    writer = ShardWriter(column, "000001")
    for (key, mine), (_, next_one) in zip(samples, samples[1:] + samples[:1], strict=True):
        kept = {n: mine[n] for n in mine if n in ("views", "grid")}
        swapped = {n: np.resize(a, mine[n].shape) for n, a in next_one.items() if n not in kept}
        writer.add(key, {"npz": npz_bytes({**swapped, **kept})})
    writer.commit(error=receipt.error)


@pytest.mark.parametrize("name", TEACHERS)
def test_verify__other_targets_do_not_hold(built, name):
    swap_targets(built.find("targets", name))
    verified = verify(asked(built, teachers=(name,)))
    assert not verified["verified"]
    assert any(not figure["holds"] for figure in verified["columns"][0]["figures"].values())


def test_verify__exits_with_1_where_targets_do_not_hold(built):
    def exit_code(name):
        words = ["verify", "--store", built.root, "--teacher", name, "--device", "cpu"]
        return CliRunner().invoke(main, words).exit_code

    swap_targets(built.find("targets", "crops-scenes-s"))
    assert exit_code("scenes-s") == 0
    assert exit_code("crops-scenes-s") == 1


def test_verify__other_weights_are_refused(built, tmp_path):
    model, _ = load_model("scenes-s", "random:5")
    path = tmp_path / "other.safetensors"
    save_file(model.clip.state_dict(), path)
    with pytest.raises(DenseCLIError, match=r"made with other weights, not .*other\.safetensors") as caught:
        verify(asked(built, weights={"scenes-s": str(path)}))
    assert "random:0" in caught.value.hint
    # As of an adopted column: the others can be verified without it.
    assert caught.value.hint.startswith("To verify other columns alone, name them with --teacher.")


def test_verify__other_categories_are_refused(built):
    with pytest.raises(DenseCLIError, match="different target"):
        verify(asked(built, teachers=("scenes-s",), categories="133"))


def test_verify__nothing_to_verify(tiny):
    store = build_here(replace(tiny, teachers=(), weights={}))[0].store
    with pytest.raises(DenseCLIError, match="no targets"):
        verify(asked(store))


def test_live_target__is_the_map_that_the_factor_is_of(built):
    column = built.find("targets", "self-scenes-s")
    record = read_joined([built.images, regions_beside(built, column), column], "000001")[0]
    tokens = live_target(built, column, record, asked(built)).reshape(64, -1)
    factors = dequantise(decode_npz(record.parts[column.part]["npz"]))
    bound = column.receipt("000001").error["max_abs"]
    assert np.abs(tokens @ tokens.T - factors @ factors.T).max() <= bound + 1e-4
