"""What `densecli.load` gives another program is what `evaluate` scored."""

import json
import shutil
from pathlib import Path

import numpy as np
import torch

import densecli
from densecli.core.distributed import Distributed
from densecli.evaluation.classify import ClassifyConfig, region_scores
from densecli.evaluation.panoptic import PanopticDataset
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.text import category_embeddings
from densecli.models.weights import find_weights
from densecli.scenes.coco import write_coco


def test_load__embeds_regions_masks_and_names_as_evaluate_does(tmp_path: Path) -> None:
    write_coco(tmp_path, seed=0, split="test", count=5)
    known = load_categories("scenes")
    dataset = PanopticDataset(str(tmp_path), "test", known)
    model, _ = load_model("scenes-pvlm")
    text = category_embeddings(model, known.names)
    config = ClassifyConfig(canvas=96, batch_size=5, min_side=0)
    (scores,) = region_scores(model, dataset, text, config, Distributed(device=model.device))

    export = tmp_path / "run" / "export"
    export.mkdir(parents=True)
    shutil.copy(find_weights("scenes-pvlm"), export / "student.safetensors")
    card = {"student": "scenes-pvlm", "image_size": 96, "mode": "value", "random_weights": False}
    card["initial_weights"] = {"source": "scenes-pvlm.safetensors"}
    (export / "card.json").write_text(json.dumps(card))
    student = densecli.load(tmp_path / "run", device="cpu")
    assert torch.equal(student.text(known.names), text)
    samples = [dataset[i] for i in range(len(dataset))]
    photos = [sample.photo for sample in samples]
    boxes = [np.array([s.box for s in sample.segments if s.thing]).reshape(-1, 4) for sample in samples]
    masks = [np.array([s.mask for s in sample.segments]) for sample in samples]
    for got, want in (
        (student.regions(photos, boxes), scores.boxes),
        (student.masks(photos, masks), scores.masks),
    ):
        np.testing.assert_allclose((torch.cat(got) @ text.T).numpy(), want, atol=1e-6)
