"""The generated world: a function of its arguments, true to its own annotations, biased as captions are."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

import densecli.scenes
from densecli.core.errors import DenseCLIError
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.vfm_checkpoints import load_vfm
from densecli.models.weights import find_weights
from densecli.scenes.art import DRAWINGS, TEXTURES, draw_thing
from densecli.scenes.coco import write_coco
from densecli.scenes.contrastive import ContrastiveConfig, clip_loss
from densecli.scenes.pretrain import CLIPS, PretrainConfig, pretrain_models
from densecli.scenes.selfsup import SelfSupConfig
from densecli.scenes.tokenizer import WordTokenizer
from densecli.scenes.vocabulary import NAMES, STUFF, THINGS
from densecli.scenes.world import SIZE, render


@pytest.fixture(scope="module")
def scenes():
    return [render(0, "train", i) for i in range(300)]


def test_render__is_a_function_of_its_arguments(scenes):
    again = render(0, "train", 17)
    assert (again.image == scenes[17].image).all() and again.caption == scenes[17].caption
    for other in (render(1, "train", 17), render(0, "val", 17), render(0, "train", 18)):
        assert (other.image != scenes[17].image).any()


def test_render__every_pixel_belongs_to_one_listed_segment(scenes):
    for scene in scenes:
        assert sorted(s.id for s in scene.segments) == np.unique(scene.panoptic).tolist()
        assert scene.panoptic.shape == (SIZE, SIZE) and scene.panoptic.min() >= 1


def test_render__shows_every_class(scenes):
    assert {NAMES[s.category] for scene in scenes for s in scene.segments} == set(NAMES)
    assert set(DRAWINGS) == set(THINGS) and set(TEXTURES) == set(STUFF)


def test_render__things_come_with_their_stuff(scenes):
    def names(scene):
        return {NAMES[s.category] for s in scene.segments}

    with_boat = [names(s) for s in scenes if "boat" in names(s)]
    assert len(with_boat) > 10
    assert np.mean(["water" in n for n in with_boat]) > 2 * np.mean(["water" in names(s) for s in scenes])


def test_caption__names_things_more_often_than_stuff_and_nothing_absent(scenes):
    named = {True: [], False: []}
    for scene in scenes:
        words = scene.caption.split()
        present = {NAMES[s.category] for s in scene.segments}
        assert {w for w in words if w in NAMES} <= present
        for name in present:
            named[name in THINGS].append(name in words)
    assert np.mean(named[True]) > 0.7 > 0.5 > np.mean(named[False])


def test_caption__fits_the_tokenizer(scenes):
    tokens = WordTokenizer()([s.caption for s in scenes])
    assert (tokens.max(1).values == WordTokenizer.end).all()


def test_tokenizer__refuses_words_of_another_world():
    with pytest.raises(DenseCLIError, match="zebra"):
        WordTokenizer()(["a photo of a zebra"])


@pytest.mark.parametrize("thing", THINGS)
def test_draw_thing__covers_part_of_its_square(thing):
    pixels, cover = draw_thing(thing, np.random.default_rng(0), 32)
    assert pixels.shape == (32, 32, 3) and 0.1 < (cover > 0.5).mean() < 0.95


def test_write_coco__reads_back_as_panoptic_ground_truth(tmp_path):
    write_coco(tmp_path, seed=3, split="test", count=4)
    dataset = PanopticDataset(tmp_path, "test", load_categories("scenes"))
    assert len(dataset) == 4
    for i in range(4):
        scene, read = render(3, "test", i), dataset[i]
        assert [(s.category, s.area) for s in read.segments] == [
            (s.category, int((scene.panoptic == s.id).sum())) for s in scene.segments
        ]
        assert np.abs(np.asarray(read.photo, int) - scene.image).mean() < 8
    captions = json.loads((tmp_path / "annotations" / "captions_test.json").read_text())["annotations"]
    assert [c["caption"] for c in captions] == [render(3, "test", i).caption for i in range(4)]


def test_clip_loss__is_lowest_for_matching_pairs():
    unit, scale, alone = torch.eye(4), torch.tensor(100.0), torch.eye(4, dtype=torch.bool)
    assert clip_loss(unit, unit, scale, alone) < 1e-4
    assert clip_loss(unit, unit.roll(1, 0), scale, alone) > 10


def test_clip_loss__any_picture_of_a_caption_will_do():
    text = torch.nn.functional.normalize(torch.tensor([[1, 0, 0.1], [1, 0, -0.1], [0, 1, 0]]), dim=1)
    swapped, scale = text[[1, 0, 2]], torch.tensor(20.0)
    same = torch.tensor([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=torch.bool)
    alone = torch.eye(3, dtype=torch.bool)
    assert torch.allclose(clip_loss(text, text, scale, same), clip_loss(swapped, text, scale, same))
    assert clip_loss(text, text, scale, alone) < clip_loss(swapped, text, scale, alone) - 0.1


def test_pretrain__writes_models_that_load_and_their_record_and_keeps_them(tmp_path):
    config = PretrainConfig(
        scenes=32,
        contrastive=ContrastiveConfig(pairs=64, batch_size=16),
        selfsup=SelfSupConfig(scenes=16, visits=16, batch_size=8, prototypes=8),
        held_out=16,
    )
    pretrain_models(config, tmp_path)
    record = json.loads((tmp_path / "scenes.json").read_text())
    assert record["config"] == json.loads(json.dumps(asdict(config)))
    assert {name: row["steps"] for name, row in record["models"].items()} == {
        "scenes-s": 4,
        "scenes-l": 4,
        "scenes-vfm": 2,
    }
    for name in ("scenes-l", "scenes-s"):
        load_model(name, str(tmp_path / f"{name}.safetensors"))
    load_vfm("scenes-vfm", str(tmp_path / "scenes-vfm.safetensors"))

    before = {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")}
    clips = [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in CLIPS]
    (tmp_path / "scenes-vfm.safetensors").unlink()
    pretrain_models(config, tmp_path)
    assert {file.name: file.read_bytes() for file in tmp_path.glob("*.safetensors")} == before
    assert [(tmp_path / f"{name}.safetensors").stat().st_mtime_ns for name in CLIPS] == clips


def test_shipped_weights__were_trained_by_the_command_s_defaults():
    weights = Path(densecli.scenes.__file__).parent / "weights"
    record = json.loads((weights / "scenes.json").read_text())
    defaults = json.loads(json.dumps(asdict(PretrainConfig())))
    assert {name: record["config"][name] for name in defaults} == defaults
    assert sum(file.stat().st_size for file in weights.iterdir()) <= 8_000_000
    shipped = {file.stem for file in weights.glob("*.safetensors")}
    tuned = {"scenes-pvlm", "scenes-pvlm-unbiased", "scenes-s-clipself"}
    assert record["models"].keys() == shipped == {"scenes-s", "scenes-l", "scenes-vfm"} | tuned
    assert defaults["clipself"].keys() == tuned
    assert all(record["models"][name]["steps"] == defaults["clipself"][name]["max_steps"] for name in tuned)
    assert all(row["steps"] > 0 for row in record["models"].values())
    assert all(record["models"][name]["retrieval_accuracy"] > 10 for name in ("scenes-s", "scenes-l"))


def separation(tokens, segments):
    """How often a pair of tokens of one segment is more alike than a pair of two (the area under the ROC)."""
    alike = torch.einsum("bcn,bcm->bnm", tokens.flatten(2), tokens.flatten(2)).flatten()
    same = (segments[:, :, None] == segments[:, None, :]).flatten()
    ranks = alike.argsort().argsort()[same].double()
    return ((ranks.sum() - len(ranks) * (len(ranks) - 1) / 2) / len(ranks) / (~same).sum()).item()


def test_vfm__knows_segments_better_than_the_student_does():
    scenes = [render(0, "val", i) for i in range(12)]
    images = torch.from_numpy(np.stack([s.image for s in scenes])).permute(0, 3, 1, 2)
    centres = torch.from_numpy(np.stack([s.panoptic[6::12, 6::12].ravel() for s in scenes]))
    vfm, (student, _) = load_vfm("scenes-vfm", find_weights("scenes-vfm")), load_model("scenes-s")
    with torch.inference_mode():
        of_vfm = separation(vfm(vfm.prepare(images, 12)), centres)
        of_student = separation(student.dense(student.prepare(images)), centres)
    assert of_vfm > of_student
