"""Category sets out of lists and captions, and the rules that tell thing from stuff."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner, Result

from densecli.commands.categories import categories
from densecli.models.categories import load_categories
from densecli.models.thing_stuff import (
    PRODUCTS,
    Known,
    classify_thing_stuff,
    clean,
    counted,
    decide,
    named_in,
    singular,
    word_list,
)
from densecli.scenes.vocabulary import NAMES, THINGS


@pytest.mark.parametrize(
    ("word", "one"),
    [
        *[("boats", "boat"), ("boxes", "box"), ("glasses", "glasses"), ("berries", "berry"), ("bus", "bus")],
        *[("buses", "bus"), ("grass", "grass"), ("people", "person"), ("sheep", "sheep"), ("pies", "pie")],
        *[("benches", "bench"), ("vases", "vase"), ("tennis", "tennis"), ("gas", "gas"), ("skis", "skis")],
    ],
)
def test_singular__by_spelling(word: str, one: str) -> None:
    assert singular(word) == one


def test_clean__case_space_and_what_coco_appends() -> None:
    assert clean("  Wine   Glasses ") == "wine glasses"
    assert clean("sky-other-merged") == "sky" and clean("door-stuff") == "door"
    assert counted(["Boat", "boats", " ", "tennis_rackets"]) == {"boat": 2, "tennis racket": 1}


def test_named_in__the_longest_name_and_every_caption_once() -> None:
    names, others = named_in(
        ["A hot dog and two hot dogs.", "Dogs on GRASS, dogs in a car", "a purple thingummy"],
        ["hot dog", "dog", "grass", "car"],
    )
    assert names == {"hot dog": 1, "dog": 1, "grass": 1, "car": 1}
    assert others["thingummy"] == 1 and "dogs" not in others


KNOWN = {
    "table": Known(True, "a"),
    "sky": Known(False, "b"),
    "sea": Known(False, "b"),
    "dog": Known(True, "a"),
}


def test_classify_thing_stuff__by_list_by_last_word_and_else_a_thing() -> None:
    sky, table, stranger = classify_thing_stuff({"sky": 3, "wooden table": 2, "thingummy": 1}, KNOWN)
    assert (sky.thing, sky.count) == (False, 3) and "stuff in b" in sky.why
    assert table.thing and "its last word, table," in table.why
    assert stranger.thing and "no rule knows it" in stranger.why


def test_classify_thing_stuff__by_the_nearest_in_text_space(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = []

    def embed(names: list[str]) -> torch.Tensor:
        embedded.append(list(names))
        rows = {"haze": [0.0, 1], "sky": [0, 1], "sea": [0.1, 1], "dog": [1, 0], "table": [1, 0.1]}
        return torch.nn.functional.normalize(torch.tensor([rows[name] for name in names]), dim=1)

    monkeypatch.setattr("densecli.models.thing_stuff.NEIGHBOURS", 3)
    (haze,) = classify_thing_stuff({"haze": 1}, KNOWN, embed)
    assert not haze.thing and haze.why.startswith("nearest in text space: sky (stuff), sea (stuff)")
    assert embedded[0] == ["haze"]


def test_word_list__the_users_own_comes_first(tmp_path: Path) -> None:
    assert not word_list()["sky"].thing and word_list()["snowman"].thing
    (tmp_path / "own.csv").write_text("name,thing\nsky,true\nsnowmen,false\n")
    own = word_list(load_categories(str(tmp_path / "own.csv")))
    assert own["sky"] == (True, str(tmp_path / "own.csv"))


def test_word_list__knows_the_published_names_as_published() -> None:
    coco, known = load_categories("133"), word_list()
    for name, thing in zip(coco.names, coco.thing_flags(), strict=True):
        if known[clean(name)].source == PRODUCTS:
            assert known[clean(name)].thing
            continue
        assert known[clean(name)].thing == thing, name


def run(*words: object) -> Result:
    return CliRunner().invoke(categories, [str(word) for word in words])


def test_categories__the_generated_worlds_captions_give_its_categories(tmp_path: Path) -> None:
    from densecli.scenes.world import render

    file = tmp_path / "captions.json"
    captions = [{"caption": render(seed=0, split="train", index=i).caption} for i in range(120)]
    file.write_text(json.dumps({"images": [], "annotations": captions}))
    done = run("--from-captions", file, "--out", tmp_path / "set.json")
    assert done.exit_code == 0, done.output
    found = load_categories(str(tmp_path / "set.json"))
    assert set(found.names) == set(NAMES)
    assert {name for name, thing in zip(found.names, found.thing_flags(), strict=True) if thing} == set(
        THINGS
    )
    sheet = load_categories(str(tmp_path / "set.csv"))
    assert sheet.names == found.names and (sheet.thing_flags() == found.thing_flags()).all()
    assert "Frequent words" in done.output and "photo 120" in done.output


def test_categories__an_edited_set_is_believed(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("Boats\nboat\nsky\nrare thing\n")
    out = tmp_path / "set.json"
    assert run("--from", tmp_path / "names.txt", "--min-count", 1, "--out", out).exit_code == 0
    edited = (tmp_path / "set.csv").read_text().replace("sky,false", "sky,true")
    (tmp_path / "mine.csv").write_text(edited)
    done = run("--from", tmp_path / "names.txt", "--words", tmp_path / "mine.csv", "--out", out)
    assert done.exit_code == 0, done.output
    assert load_categories(str(out)).thing_flags().all()
    assert run("--from", tmp_path / "names.txt", "--min-count", 2, "--out", out).exit_code == 0
    assert load_categories(str(out)).names == ("boat",)


@pytest.mark.parametrize("out", ["set.csv", "set", "set.json"])
def test_categories__writes_both_files_whichever_is_named(tmp_path: Path, out: str) -> None:
    (tmp_path / "names.txt").write_text("sky\nboat\n")
    done = run("--from", tmp_path / "names.txt", "--out", tmp_path / out)
    assert done.exit_code == 0 and f"Written: {tmp_path / 'set.json'}, {tmp_path / 'set.csv'}" in done.output
    made = [load_categories(str(tmp_path / name)).names for name in ("set.json", "set.csv")]
    assert made[0] == made[1] and set(made[0]) == {"sky", "boat"}
    assert len(list(tmp_path.iterdir())) == 3


def test_categories__a_text_tower_is_asked_about_strangers_alone(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("sky\nboat\n")
    words = ["--student", "scenes-s", "--weights", "scenes-s=random:0", "--dry-run"]
    done = run("--from", tmp_path / "names.txt", *words)
    assert done.exit_code == 0 and "1 things and 1 stuff" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"names.txt"}


def test_categories__one_source_is_asked_for(tmp_path: Path) -> None:
    assert run().exit_code == 2


def test_decide__products_are_things_and_the_line_says_so() -> None:
    names = ("coffee table", "wall mirror", "rug", "pillow", "blanket", "sofa", "wall", "floor", "gizmotron")
    thing, line = decide(names)
    assert thing == [True] * 6 + [False, False, True]
    assert "7 of 9 names are taken for things, and for stuff: wall, floor." in line
    assert "Not sure of: coffee table, wall mirror, rug, pillow, blanket, gizmotron." in line
    assert "--all-things" in line


def test_categories__a_name_that_rules_are_not_sure_of_is_asked_for_on_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "own.json"
    said = run("--from", "sofa, rug, wall", "--out", out).output
    assert "Not sure of 1: rug" in said
    terminal = SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True))
    monkeypatch.setattr("densecli.commands.categories.sys", terminal)
    done = CliRunner().invoke(categories, ["--from", "sofa, rug, wall", "--out", str(out)], input="stuff\n")
    assert done.exit_code == 0 and "Which is it?" in done.output and "Not sure" not in done.output
    assert load_categories(str(out)).thing_flags().tolist() == [True, False, False]
