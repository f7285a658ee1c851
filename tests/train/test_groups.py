"""Groups of categories finer than things and stuff, of which decoupling and beta are special cases."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training import run_settings

from densecli.core.errors import DenseCLIError
from densecli.train.distillation import TrainConfig, train
from densecli.train.groups import Groups, clusters, find_groups, with_tails
from densecli.train.losses import DECOUPLING, decoupled_kl, side_weights, teacher_probs
from densecli.train.terms.region_kl import RegionKL

NAMES = ("dog", "cat", "car", "bus", "sky", "grass", "road")
THING = torch.tensor([True, True, True, True, False, False, False])
TEXT = F.normalize(torch.randn(7, 8, generator=torch.Generator().manual_seed(0)), dim=1)
FILE = """
[groups]
animals = ["dog", "cat"]
vehicles = ["car", "bus"]
ground = ["grass", "road"]

[weights.animals]
vehicles = 0.5
ground = 0.25

[weights.ground]
animals = 0
"""


def test_groups__an_unknown_category_names_the_nearest(tmp_path):
    file = tmp_path / "groups.toml"
    file.write_text(FILE.replace('"cat"', '"cab"'))
    with pytest.raises(DenseCLIError, match="names 'cab'") as caught:
        find_groups(str(file), NAMES, THING, TEXT)
    assert caught.value.hint.startswith("Did you mean ca")


def cosines(seed: int, regions: int = 40) -> torch.Tensor:
    return torch.randn(regions, len(NAMES), generator=torch.Generator().manual_seed(seed)) * 0.03


@pytest.fixture
def groups(tmp_path):
    file = tmp_path / "groups.toml"
    file.write_text(FILE)
    return find_groups(str(file), NAMES, THING, TEXT)


def stored(probs: torch.Tensor, named: int) -> torch.Tensor:
    """(R, D + 2): the likeliest classes, and the tails of things and of stuff, as a store has them."""
    kept = torch.zeros_like(probs).scatter(1, probs.topk(named).indices, 1.0).bool()
    tail = probs.masked_fill(kept, 0)
    tails = torch.stack([tail[:, THING].sum(1), tail[:, ~THING].sum(1)], dim=1)
    return torch.cat([probs.masked_fill(~kept, 0), tails], dim=1)


@pytest.mark.parametrize(
    ("variant", "beta"), [*((v, None) for v in DECOUPLING), ("densevlm", 0.3), ("none", 0.0)]
)
@pytest.mark.parametrize("named", [7, 3])
def test_two_groups__are_every_variant_and_beta(variant, beta, named):
    two = Groups(
        names=("things", "stuff"),
        of_class=np.array([0, 0, 0, 0, 1, 1, 1]),
        given=np.array(side_weights(variant, beta)),
    )
    # The sides' own weights are not read where all are given.
    weights = with_tails(two.class_weights(THING, torch.full((2, 2), 0.7), 0.9), THING)
    teacher, student = stored(teacher_probs(cosines(0), 0.02), named), cosines(1)
    expected = decoupled_kl(student, teacher, THING, theta=0.1, variant=variant, beta=beta)
    found = decoupled_kl(student, teacher, THING, theta=0.1, class_weights=weights)
    torch.testing.assert_close(found, expected)


def test_loss__from_the_definition_region_by_region(groups):
    """Each region: both distributions times the weights for its most probable category, renormalised, KL."""
    within_side, beta = 0.75, 0.1
    sides = side_weights("densevlm", beta)
    group = {"dog": "animals", "cat": "animals", "car": "vehicles", "bus": "vehicles", "sky": "other",
             "grass": "ground", "road": "ground"}  # fmt: skip
    given = {("animals", "vehicles"): 0.5, ("animals", "ground"): 0.25, ("ground", "animals"): 0.0}

    def weight(best: int, other: int) -> float:
        a, b = group[NAMES[best]], group[NAMES[other]]
        if a == b:
            return 1.0
        if (a, b) in given:
            return given[a, b]
        if THING[best] == THING[other]:
            return within_side
        return sides[0][1] if THING[best] else sides[1][0]

    teacher, student = teacher_probs(cosines(0), 0.02).double(), cosines(1).double()
    total = 0.0
    for p, z in zip(teacher.tolist(), student.tolist(), strict=True):
        best = max(range(7), key=p.__getitem__)
        w = [weight(best, c) for c in range(7)]
        q = [math.exp(z[c] / 0.01) * w[c] for c in range(7)]
        t = [p[c] * w[c] for c in range(7)]
        total += sum(t[c] / sum(t) * math.log(t[c] / sum(t) / (q[c] / sum(q))) for c in range(7) if t[c] > 0)
    weights = groups.class_weights(THING, torch.tensor(sides), within_side)
    found = decoupled_kl(student, teacher, THING, theta=0.0, class_weights=weights)
    assert float(found) == pytest.approx(total / len(teacher), rel=1e-4)


def test_with_tails__means_of_each_side():
    weights = torch.arange(49.0).reshape(7, 7)
    found = with_tails(weights, THING)
    assert found.shape == (9, 9)
    torch.testing.assert_close(found[:7, 7], weights[:, :4].mean(dim=1))
    torch.testing.assert_close(found[8, :7], weights[4:].mean(dim=0))
    torch.testing.assert_close(found[7, 8], weights[:4, 4:].mean())


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_find__a_group_column_in_a_category_file(tmp_path, suffix):
    rows = [("dog", "animals"), ("cat", "animals"), ("sky", "air")]
    file = tmp_path / f"categories{suffix}"
    if suffix == ".csv":
        file.write_text("name,thing,group\n" + "".join(f"{n},,{g}\n" for n, g in rows) + "car,,\n")
    else:
        file.write_text(json.dumps([{"name": "car"}, *({"name": n, "group": g} for n, g in rows)]))
    found = find_groups(str(file), NAMES, THING, TEXT)
    of = {name: found.names[place] for name, place in zip(NAMES, found.of_class, strict=True)}
    assert of == {"dog": "animals", "cat": "animals", "sky": "air", "car": "other things",
                  "bus": "other things", "grass": "other stuff", "road": "other stuff"}  # fmt: skip
    assert np.isnan(found.given).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "puts no category into a group"),
        ("[groups]\na = []", "puts no category into a group"),
        ("[groups]\na = 3", r"groups\.a is not a list"),
        ("[groups]\na = 'dog'", r"groups\.a is not a list"),
        ("[groups]\na = ['dog']\n[weight.a]\na = 1", r"\[weight\] is neither"),
        ("[groups]\na = ['dog']\n[weights]\na = 1", r"weights\.a is not an object"),
        ("[groups]\na = ['dog']\n[weights.a]\na = 0.5", "for itself, which is always 1"),
        ("[groups]\n'other things' = ['sky']", "things and stuff in the group 'other things'"),
        ("[groups]\na = ['wolf']", "names 'wolf'"),
        ("[groups]\na = ['dog']\nb = ['dog']", "has 'dog' in 'a' and in 'b'"),
        ("[groups]\na = ['dog', 'sky']", "things and stuff in the group 'a'"),
        ("[groups]\na = ['dog']\n[weights.b]\na = 0.1", "which is no group"),
        ("[groups]\na = ['dog']\nb = ['cat']\n[weights.b]\na = 2", "outside of 0 to 1"),
        ("[groups]\na = ['dog']\nb = ['cat']\n[weights.b]\na = 'x'", "cannot be read"),
    ],
)
def test_find__a_file_that_cannot_be_right_is_one_sentence(tmp_path, text, said):
    file = tmp_path / "groups.toml"
    file.write_text(text)
    with pytest.raises(DenseCLIError, match=said):
        find_groups(str(file), NAMES, THING, TEXT)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("g.csv", "", "has no column group"),
        ("g.csv", "name;group\ndog;a\n", "has no column group"),
        ("g.csv", "name,group\ndog,\n", "puts no category into a group"),
        ("g.json", '["dog"]', "is not an object"),
        ("g.json", '[{"name": "dog", "group": ["a"]}]', "row 1 has no name"),
        ("g.txt", "dog\n", "ends in none of"),
    ],
)
def test_find__a_table_without_groups_is_one_sentence(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(DenseCLIError, match=said):
        find_groups(str(tmp_path / name), NAMES, THING, TEXT)


def test_find__a_name_that_a_set_has_twice_is_in_its_group_twice(tmp_path):
    (tmp_path / "g.csv").write_text("name,group\ndog, animals \ncat,animals\n")
    found = find_groups(str(tmp_path / "g.csv"), ("dog", "car", "dog", "cat"), THING[:4], TEXT[:4])
    assert [found.names[place] for place in found.of_class] == [
        "animals",
        "other things",
        "animals",
        "animals",
    ]
    assert found.told(("dog", "car", "dog", "cat")) == (
        "2 groups of categories: animals (dog, dog, cat); other things (car)."
    )


@pytest.mark.parametrize(("content", "said"), [(b"\xff\xfe", "is not UTF-8 text"), (None, "No such file")])
def test_find__a_file_that_is_no_text_or_not_there(tmp_path, content, said):
    file = tmp_path / "groups.toml"
    if content:
        file.write_bytes(content)
    with pytest.raises(DenseCLIError, match=said):
        find_groups(str(file), NAMES, THING, TEXT)


def test_clusters__of_each_side_and_the_same_every_time():
    centres = torch.eye(16)[:4]
    noise = 0.05 * torch.randn(24, 16, generator=torch.Generator().manual_seed(3))
    text = F.normalize(centres.repeat_interleave(6, dim=0) + noise, dim=1)
    sides = np.arange(24) < 12
    found = clusters(text, sides, 4)
    assert found.names == ("things 1", "things 2", "stuff 1", "stuff 2")
    for start in range(0, 24, 6):
        assert len(set(found.of_class[start : start + 6].tolist())) == 1
    assert len(set(found.of_class[::6].tolist())) == 4
    assert (clusters(text, sides, 4).of_class == found.of_class).all()
    every = clusters(text, sides, 24)
    assert sorted(every.of_class.tolist()) == list(range(24))
    for bad in ("cluster:1", "cluster:25", "cluster:x", "cluster:"):
        with pytest.raises(DenseCLIError, match="no number of clusters"):
            find_groups(bad, [str(i) for i in range(24)], torch.from_numpy(sides), text)


def term(**options):
    """The term region_kl on a column of these categories."""
    codec = {"things": THING.tolist()}
    column = SimpleNamespace(spec={"target": {"tau": 0.01, "categories": NAMES}, "codec": codec})
    given = {"tau": 0.01, "theta": 0.3, "variant": "densevlm", "beta": None, "reduction": "regions"}
    return RegionKL(column, TEXT, kind="labels", options=RegionKL.Options(**options), **given)


def test_region_kl__says_which_groups_it_found():
    [note] = term(groups="cluster:3").notes
    assert note.startswith("3 groups of categories: things 1 (") and all(name in note for name in NAMES)
    assert term().notes == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"groups": "cluster:3", "group_weight": -1.0}, "cannot be -1"),
        ({"groups": "cluster:3", "group_weight": 1.5}, "cannot be 1.5"),
        ({"groups": "cluster:3", "group_weight": float("nan")}, "cannot be nan"),
        ({"group_weight": 0.5}, "is about groups, and there are none"),
    ],
)
def test_region_kl__a_group_weight_that_cannot_be_or_that_nothing_reads(options, said):
    with pytest.raises(DenseCLIError, match=said):
        term(**options)


def test_train__is_not_continued_with_another_content_of_a_file(tiny_store, tmp_path):
    groups, templates = tmp_path / "groups.toml", tmp_path / "templates.txt"
    first = tiny_store.labels.spec["target"]["categories"][0]
    groups.write_text(f"[groups]\na = [{first!r}]\n")
    templates.write_text("a {}\n")
    settings = {"method": "densevlm", "max_steps": 1, "templates": str(templates)}
    options = {"region_kl.groups": str(groups)}
    config = TrainConfig(
        **run_settings(tiny_store.store.root, tmp_path / "run", loss_options=options, **settings)
    )
    train(config)
    train(config)
    groups.write_text(f"[groups]\na = [{first!r}]\n[weights.a]\n'other things' = 0.5\n")
    with pytest.raises(
        DenseCLIError, match=r"other settings: the content of the file of region_kl\.groups\."
    ):
        train(config)
    templates.write_text("the {}\n")
    with pytest.raises(DenseCLIError, match=r"of region_kl\.groups; the content of the file of templates\."):
        train(config)
