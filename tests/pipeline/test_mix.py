"""Labels of several P-VLMs as one column, and where they disagree."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from building import build_here
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from densecli.ablation.teacher_cost import teacher_costs
from densecli.cli import main
from densecli.core.errors import DenseCLIError
from densecli.pipeline.compare_labels import compare_labels
from densecli.pipeline.mix import mix_labels
from densecli.pipeline.mix_config import MixConfig
from densecli.pipeline.mixing import RULES, agreement, mix, with_tail_spread
from densecli.shards.lint import lint
from densecli.shards.store import Store
from densecli.shards.writer import ShardWriter
from densecli.train.losses import kept_regions
from densecli.train.terms.region_kl import RegionKL

THINGS = np.array([True, True, False, False])


def test_with_tail_spread__evenly_over_the_unnamed_classes_of_each_side():
    p = np.array([[0.5, 0, 0.3, 0, 0.1, 0.1], [0, 0, 1, 0, 0, 0]])
    np.testing.assert_allclose(with_tail_spread(p, THINGS), [[0.5, 0.1, 0.3, 0.1], [0, 0, 1, 0]], atol=1e-12)


TWO = np.array([[[0.7, 0.2, 0.1, 0], [0.1, 0.6, 0.3, 0]], [[0.6, 0.1, 0.3, 0], [0.1, 0.3, 0.6, 0]]])
"""Two P-VLMs, two regions: they agree on the first and not on the second."""


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("average", [[0.675, 0.175, 0.15, 0], [0.1, 0.525, 0.375, 0]]),
        ("vote", [[1, 0, 0, 0], [0, 0.75, 0.25, 0]]),
        ("agree", [[0.675, 0.175, 0.15, 0], [0.25, 0.25, 0.25, 0.25]]),
    ],
)
def test_rules__of_two_regions_with_weights_3_to_1(rule, expected):
    np.testing.assert_allclose(RULES[rule](TWO, np.array([0.75, 0.25])), expected, atol=1e-12)
    assert agreement(TWO).tolist() == [True, False]


@given(st.integers(0, 10_000), st.integers(1, 4), st.sampled_from(list(RULES)))
def test_mix__is_a_distribution_and_of_one_p_vlm_twice_its_own(seed, models, rule):
    rng = np.random.default_rng(seed)
    stored = [rng.dirichlet(np.full(6, 0.2), size=5).astype(np.float32) for _ in range(models)]
    weights = rng.dirichlet(np.ones(models))
    p, same = mix(stored, weights, THINGS, rule)
    assert p.shape == (5, 4) and same.shape == (5,) and (p >= 0).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)
    twice, agreed = mix([stored[0], stored[0]], np.array([0.3, 0.7]), THINGS, "agree")
    np.testing.assert_allclose(twice, with_tail_spread(stored[0], THINGS), atol=1e-6)
    assert agreed.all()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A store with the labels of two P-VLMs, a third with other categories, and crops."""
    from densecli.pipeline.config import BuildConfig

    config = BuildConfig(
        dataset="scenes",
        split="val",
        limit=5,
        shard_size=3,
        store=str(tmp_path_factory.mktemp("mix") / "store"),
        teachers=("scenes-s", "scenes-l", "crops-scenes-s"),
        views=1,
        regions="grid-square",
        device="cpu",
    )
    build_here(config)
    few = tmp_path_factory.mktemp("few") / "few.csv"
    few.write_text("name,thing\nboat,true\ngrass,false\n")
    build_here(replace(config, teachers=("scenes-s-clipself",), categories=str(few)))
    return config.store


@pytest.fixture
def store(built, tmp_path):
    shutil.copytree(built, tmp_path / "store")
    return str(tmp_path / "store")


WEIGHTS = {"scenes-s": 1.0, "scenes-l": 3.0}


def decoded(store, name):
    column = store.find("targets", name)
    return [column.codec.decode(r.arrays(column.part)) for r in store.samples(column)]


@pytest.mark.parametrize("keep", [0.0, 0.5, 1.0])
def test_agree__what_p_vlms_disagree_on_is_no_label_whatever_the_threshold(store, keep):
    mix_labels(MixConfig(store=store, teacher_mix=WEIGHTS, rule="agree"))
    opened = Store.open(store)
    mixed = opened.find("targets", "mix-agree-scenes-l-scenes-s")
    text = torch.eye(len(mixed.spec["codec"]["things"]))
    given = {"tau": 0.01, "theta": 0.0, "variant": "none", "beta": None, "reduction": "regions"}
    term = RegionKL(mixed, text, kind="labels", options=RegionKL.Options(keep=keep), **given)
    one, other = (np.concatenate(decoded(opened, name)) for name in WEIGHTS)
    same = one[:, :-2].argmax(axis=1) == other[:, :-2].argmax(axis=1)
    kept = kept_regions(torch.from_numpy(np.concatenate(decoded(opened, mixed.name))), term.threshold).numpy()
    assert not kept[~same].any() and (~same).any()
    assert kept[same].all() if keep in (0, 1) else keep <= kept[same].mean() < 1


@pytest.mark.parametrize("rule", RULES)
def test_mix_labels__is_the_rule_of_the_two_columns(store, rule):
    found = mix_labels(MixConfig(store=store, teacher_mix=WEIGHTS, rule=rule))
    assert found["status"] == "built" and found["samples"] == 5
    opened = Store.open(store)
    [name] = [column["name"] for column in found["columns"]]
    assert name == f"mix-{rule}-scenes-l-scenes-s"
    mixed = opened.find("targets", name)
    things = np.array(mixed.spec["codec"]["things"])
    one, other = decoded(opened, "scenes-s"), decoded(opened, "scenes-l")
    agreed = []
    for a, b, stored in zip(one, other, decoded(opened, name), strict=True):
        p, same = mix([a, b], np.array([0.25, 0.75]), things, rule)
        np.testing.assert_allclose(with_tail_spread(stored, things), p, atol=2e-3)
        agreed.append(same.mean())
        if rule == "agree":
            kept = kept_regions(torch.from_numpy(stored), 1 / len(things) + 1e-3).numpy()
            assert not kept[~same].any()
    receipts = [mixed.receipt(shard) for shard in mixed.shard_names]
    means = [r.error["agreement"] for r in receipts]
    assert np.average(means, weights=[r.samples for r in receipts]) == pytest.approx(np.mean(agreed))
    assert not [finding for finding in lint(opened) if not finding.advice]


def test_mix_labels__again_and_in_another_order_is_the_same_column(store, files_of):
    mix_labels(MixConfig(store=store, teacher_mix=WEIGHTS))
    before = files_of(store)
    again = mix_labels(MixConfig(store=store, teacher_mix={"scenes-l": 0.75, "scenes-s": 0.25}))
    assert again["status"] == "up to date" and files_of(store) == before
    # Every column of labels but a mix, by default; here one has other categories.
    with pytest.raises(DenseCLIError, match="different categories") as caught:
        mix_labels(MixConfig(store=store))
    assert "Choose" in caught.value.hint and "--teacher-mix" in caught.value.hint


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"scenes-s": 1.0}, "needs two columns"),
        ({"scenes-s": 1.0, "SCENES-S-ID": 2.0}, "scenes-s-[0-9a-f]+ is given twice"),
        ({"scenes-s": 1.0, "scenes-s-tau": 2.0}, "different temperatures"),
        ({"scenes-s": 1.0, "scenes-l": 0.0}, "not above 0"),
        ({"scenes-s": 1.0, "crops-scenes-s": 1.0}, "holds crops, not labels"),
        ({"scenes-s": 1.0, "scenes-xl": 1.0}, "no targets columns named 'scenes-xl'"),
    ],
)
def test_mix_labels__refuses(store, columns, said):
    opened = Store.open(store)
    one = opened.find("targets", "scenes-s")
    spec = {k: v for k, v in one.spec.items() if k not in ("kind", "name", "data")}
    opened.add_column("targets", "scenes-s-tau", {**spec, "target": {**spec["target"], "tau": 0.5}})
    for shard in one.shard_names:
        ShardWriter(opened.find("targets", "scenes-s-tau"), shard).commit()
    given = {one.full_name if name == "SCENES-S-ID" else name: weight for name, weight in columns.items()}
    with pytest.raises(DenseCLIError, match=said) as caught:
        mix_labels(MixConfig(store=store, teacher_mix=given))
    assert ("--teacher-mix" in caught.value.hint) == (said[:5] in ("needs", "scene", "diffe"))


def test_mix_labels__refuses_a_column_that_is_not_finished(store):
    column = Store.open(store).find("targets", "scenes-l")
    os.remove(column.receipt_url("000001"))
    with pytest.raises(DenseCLIError, match="lacks 1 of 2 shards"):
        mix_labels(MixConfig(store=store, teacher_mix=WEIGHTS))


def test_teacher_costs__of_a_mix_are_those_of_its_columns(store):
    mix_labels(MixConfig(store=store, teacher_mix=WEIGHTS))
    opened = Store.open(store)
    mixed = next(c for c in opened.columns("targets") if "mixed" in c.spec)
    costs = {
        cost.column.rpartition("-")[0]: cost for cost in teacher_costs(opened, [({"labels": mixed.key}, 70)])
    }
    assert {name: cost.photos_seen for name, cost in costs.items()} == {
        "scenes-s": 70, "scenes-l": 70, mixed.name: 0,
    }  # fmt: skip


def test_compare__agreement_by_category_from_the_definition(store):
    found = compare_labels(store, "scenes-s", "scenes-l", samples=100)
    opened = Store.open(store)
    names = opened.find("targets", "scenes-s").spec["target"]["categories"]
    one, other = (
        np.concatenate(decoded(opened, name))[:, :-2].argmax(1) for name in ("scenes-s", "scenes-l")
    )
    assert found["photos"] == 5 and found["regions"] == len(one)
    assert found["agreement"] == pytest.approx((one == other).mean())
    for row in found["classes"]:
        of_class = one == names.index(row["name"])
        assert row["regions"] == of_class.sum()
        assert row["agreement"] == pytest.approx((other[of_class] == one[of_class]).mean())
    assert sum(row["regions"] for row in found["classes"]) == len(one)
    parts = found["by_confidence"]
    assert sum(part["regions"] for part in parts) == len(one) and len(parts) == 10
    assert [part["confidence"] for part in parts] == sorted(part["confidence"] for part in parts)
    agreed = sum(part["agreement"] * part["regions"] for part in parts)
    assert agreed / len(one) == pytest.approx(found["agreement"])
    same = compare_labels(store, "scenes-s", "scenes-s", samples=2)
    assert (same["agreement"], same["mean_total_variation"], same["photos"]) == (1.0, 0.0, 2)


def test_commands__a_name_with_two_weights_is_refused(store):
    words = ["mix", "--store", store, "--teacher-mix", "scenes-s=1,scenes-l=1,scenes-s=2"]
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2 and "'scenes-s' has two weights" in done.output


def test_commands__mix_then_verify_against(store, tmp_path):
    words = ["--teacher-mix", "scenes-s=1,scenes-l=1", "--rule", "vote"]
    done = CliRunner().invoke(main, ["mix", "--store", store, *words, "--json", str(tmp_path / "mix.json")])
    assert done.exit_code == 0, done.output
    [column] = json.loads((tmp_path / "mix.json").read_text())["columns"]
    done = CliRunner().invoke(
        main,
        ["verify", "--store", store, "--teacher", "scenes-s", "--against", column["name"],
         "--report", str(tmp_path / "page")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    page = (tmp_path / "page" / "index.html").read_text()
    assert "Agreement by confidence" in page and "<svg" in page
    assert "The two agree on" in done.output and "bytes a photo" in done.output
    done = CliRunner().invoke(main, ["verify", "--store", store, "--against", "scenes-l"])
    assert done.exit_code == 1 and "Give one --teacher" in done.output
