"""Heads of loss terms: a learnt projection to a teacher of another width (DenseVLM, table 1, row 2)."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from training import rows, run_settings

from densecli.core.errors import DenseCLIError
from densecli.models.pooling import region_pool
from densecli.models.student import load_student
from densecli.shards.regions import view_of
from densecli.train.distillation import TrainConfig, make_trainer, train
from densecli.train.export import export
from densecli.train.export_config import ExportConfig
from densecli.train.heads import MapProjection, StudentWithHeads, student_state

KD = {"method": "feature-kd", "max_steps": 2, "alpha": 1.0}


def config(full_store, run: Path, **settings) -> TrainConfig:
    return TrainConfig(**run_settings(full_store.store.root, run, **{**KD, **settings}))


def test_projection__commutes_with_pooling() -> None:
    torch.manual_seed(0)
    dense, head = torch.randn(2, 6, 5, 4), MapProjection(6, 9)
    boxes, owner = torch.tensor([[0.1, 0.0, 0.7, 0.9], [0.3, 0.2, 1.0, 0.6]]), torch.tensor([1, 0])
    after = region_pool(head(dense), boxes, owner, normalize=False)
    torch.testing.assert_close(
        after, region_pool(dense, boxes, owner, normalize=False) @ head.linear.weight.T, atol=1e-5, rtol=1e-5
    )


def test_head__of_a_student_without_an_image_embedding() -> None:
    vfm, _ = load_student("scenes-vfm")
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    model = StudentWithHeads(vfm, {"region_cosine": MapProjection(vfm.embed_dim, 5)})
    dense, context, heads = model(images, "value", context=True)
    torch.testing.assert_close(dense, vfm.dense(images))
    assert context == {} and heads["region_cosine"].shape == (2, 5, *dense.shape[2:])


def test_loss__is_the_cosine_to_projected_regions(full_store, tmp_path) -> None:
    trainer = make_trainer(config(full_store, tmp_path))
    (batch,) = next(iter(trainer.steps.batches(0)))
    (head,) = trainer.model.heads.values()
    assert head.linear.weight.shape == (48, 64)
    with torch.no_grad():
        student, images = trainer.recipe.student, trainer.recipe.student.prepare(batch.images)
        regions = region_pool(student.dense(images), batch.boxes, batch.batch_index)
        expected = 1 - F.cosine_similarity(regions @ head.linear.weight.T, batch.targets["crops"]).mean()
        recipe = trainer.recipe
        loss, _ = recipe.loss(recipe.forward(trainer.model, batch), batch, recipe.counts(batch))
    torch.testing.assert_close(loss, expected, atol=1e-5, rtol=1e-5)


def test_train__the_projection_learns_resumes_and_is_not_exported(full_store, tmp_path) -> None:
    train(config(full_store, tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StudentWithHeads, "forward", stopping_after(1))
        with pytest.raises(KeyboardInterrupt):
            train(config(full_store, tmp_path / "parts", checkpoint_every=1))
    result = train(config(full_store, tmp_path / "parts", checkpoint_every=1))
    assert rows(tmp_path / "whole") == rows(tmp_path / "parts")
    state = torch.load(tmp_path / "parts" / "checkpoints" / "step-00000002.pt", weights_only=True)["model"]
    assert any(name.startswith("heads.") for name in state)
    exported, _ = load_student("scenes-s", result["export"])
    own = student_state(state)
    assert own.keys() == exported.state_dict().keys()
    assert all(torch.equal(tensor, own[name]) for name, tensor in exported.state_dict().items())
    out = str(tmp_path / "x.safetensors")
    card = export(ExportConfig(run=str(tmp_path / "parts"), layout="open_clip", alpha=0.5, out=out))
    assert card["alpha"] == 0.5
    resolved = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert resolved["loss_options"] == {"region_cosine.projection": "true"}


def stopping_after(steps: int):
    forward, taken = StudentWithHeads.forward, []

    def stopping(self, *args, **kwargs):
        taken.append(None)
        if len(taken) > steps:
            raise KeyboardInterrupt
        return forward(self, *args, **kwargs)

    return stopping


def test_train__the_pvlms_crops_and_not_the_students_own(full_store, tiny_store, tmp_path) -> None:
    assert make_trainer(config(full_store, tmp_path)).recipe.targets["crops"].name == "crops-vitl14"
    with pytest.raises(DenseCLIError, match="no crops column of crops-vitl14") as caught:
        make_trainer(config(tiny_store, tmp_path))
    assert "densecli build-shards --teacher crops-vitl14" in caught.value.commands[0]


def test_train__another_width_without_a_projection(full_store, tmp_path) -> None:
    with pytest.raises(DenseCLIError, match="48-dimensional embeddings") as caught:
        # Before the first step.
        make_trainer(config(full_store, tmp_path, method="clipself", teachers=("crops-vitl14",)))
    assert "region_cosine.projection=true" in caught.value.hint


def test_logit_kd__reads_the_labels_of_the_stored_views(full_store, tmp_path) -> None:
    """KL over all categories of every region, from what is stored of the view that is visited."""
    settings = {"method": "logit-kd", "max_steps": 1, "tau": 0.01}
    trainer = make_trainer(config(full_store, tmp_path, **settings))
    (batch,) = next(iter(trainer.steps.batches(0)))
    recipe = trainer.recipe
    teacher, start = [], {}
    for i, key in enumerate(batch.keys):
        stored = full_store.views[key].tolist()
        sizes = full_store.offsets[1:] - full_store.offsets[:-1]
        view = sorted(stored)[view_of(key, 0, len(stored))]
        start[i] = sum(sizes[each] for each in stored[: stored.index(view)])
        teacher.append(full_store.values["crop-labels"][key][start[i] : start[i] + sizes[view]])
    p = torch.from_numpy(np.concatenate(teacher))
    with torch.no_grad():
        text = recipe.terms["region_kl:crop-labels"].text
        dense = recipe.student.dense(recipe.student.prepare(batch.images))
        q = (region_pool(dense, batch.boxes, batch.batch_index) @ text.T / 0.01).log_softmax(dim=1)
        expected = F.kl_div(q, p, reduction="none").sum(dim=1).mean()
        loss, parts = recipe.loss(recipe.forward(trainer.model, batch), batch, recipe.counts(batch))
    assert parts["kept"] == 1
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-3)
