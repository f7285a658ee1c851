"""decoupled_kl against the figures of DenseVLM's released loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densecli.train.losses import decoupled_kl, teacher_probs

# The released code counts one Thing class too few, which moves the last one to Stuff.
VARIANTS = {"official": 1, "paper": 0}


@pytest.mark.parametrize("variant", VARIANTS)
def test_decoupled_kl__value_and_gradient(golden: Path, variant: str) -> None:
    with np.load(golden / "loss_densevlm.npz", allow_pickle=False) as file:
        figures = {name: torch.from_numpy(file[name]) for name in file.files}
    thing = figures["is_thing"].clone()
    thing[int(thing.sum()) - VARIANTS[variant] :] = False
    student = figures["student_feats"].requires_grad_()

    loss = decoupled_kl(
        F.normalize(student, dim=-1) @ figures["student_text"].T,
        teacher_probs(F.normalize(figures["teacher_feats"], dim=-1) @ figures["teacher_text"].T),
        thing,
        reduction="groups",
    )
    loss.backward()

    torch.testing.assert_close(loss.detach(), figures[f"loss_{variant}"], atol=1e-4, rtol=0)
    torch.testing.assert_close(student.grad, figures[f"grad_{variant}"], atol=1e-4, rtol=0)
