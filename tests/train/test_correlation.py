"""Correlation losses: in blocks they are what they are in one piece, and they keep no matrix."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from densecli.models.pooling import region_tokens
from densecli.shards.codecs import LowRank
from densecli.train.correlation import (
    block_entries,
    context_loss,
    correlation_cross_entropy,
    pooled_diagonal,
    spatial_loss,
    unit_tokens,
)
from densecli.train.memory import LiveBytes


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def boxes(n: int, images: int) -> tuple[Tensor, Tensor]:
    corners = torch.rand(n, 2, 2, generator=torch.Generator().manual_seed(9)).sort(dim=1).values
    return corners.flatten(1) * 0.5 + torch.tensor([0, 0, 0.5, 0.5]), torch.arange(n) % images


def value_and_gradient(loss: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    value = loss(x)
    (gradient,) = torch.autograd.grad(value, x)
    return value.detach(), gradient


def plain_context(student: Tensor, teacher: Tensor) -> Tensor:
    return (teacher @ teacher.mT - student @ student.mT).square().sum(dim=-1).sqrt().mean()


@pytest.mark.parametrize("block", [1, 90, 30 * 30, 2 * 30 * 30, 2**21])
def test_context_loss__blocks_equal_the_plain_one(block: int) -> None:
    """One row at a time, 3 rows, an image, two images (of 3), everything."""
    student, teacher = unit_tokens(random(3, 16, 5, 6)), unit_tokens(random(3, 8, 5, 6, seed=1))
    value, gradient = value_and_gradient(lambda x: context_loss(x, teacher, block=block), student)
    plain, plain_gradient = value_and_gradient(lambda x: plain_context(x, teacher), student)
    torch.testing.assert_close(value, plain, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(gradient, plain_gradient, atol=1e-6, rtol=0)


def test_context_loss__nothing_to_learn() -> None:
    student = unit_tokens(random(1, 16, 4, 4))
    value, gradient = value_and_gradient(lambda x: context_loss(x, student), student)
    assert value == 0 and torch.isfinite(gradient).all()


def test_context_loss__keeps_no_matrix() -> None:
    n, saved = 1024, {}
    student, teacher = random(1, n, 32).requires_grad_(), random(1, n, 16, seed=1)

    def pack(tensor: Tensor) -> Tensor:
        saved[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = context_loss(student, teacher, block=64 * n)
    loss.backward()
    assert sum(saved.values()) < n * (32 + 16) * 4 + n * n  # the inputs, and less than a quarter of R


class Operations(TorchDispatchMode):
    """Counts operations that a GPU would launch a kernel for; views need none."""

    count = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        self.count += not any(alias.alias_info for alias in function._schema.returns)
        return result


def launches(block: int) -> int:
    """Of the context loss of a batch of 48 at 1,024 px, and of its gradient."""
    student = torch.empty(48, 4096, 768, device="meta", requires_grad=True)
    with Operations() as operations:
        context_loss(student, torch.empty(48, 4096, 64, device="meta"), block=block).backward()
    return operations.count


def test_context_loss__a_large_gpu_launches_few_kernels(monkeypatch) -> None:
    large = SimpleNamespace(total_memory=139 * 2**30)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: large)
    assert launches(block_entries(torch.device("cuda"))) < 200
    assert launches(block_entries(torch.device("cpu"))) > 5000


@pytest.mark.parametrize("of_boxes", [False, True])
def test_spatial_loss__memory_does_not_grow_with_the_boxes(of_boxes: bool) -> None:
    def peak(count: int) -> int:
        student = random(2, 32, 8, 8).requires_grad_()
        where, image = boxes(count, 2)
        teacher = random(2, 8, 8, 8, seed=1)
        target = region_tokens(teacher, where, image, 5) if of_boxes else teacher
        with LiveBytes() as live:
            spatial_loss(student, target, where, image, side=5, block=4 * 25 * 40).backward()
        return live.peak

    # Less than one more box in memory for 56 more to compare.
    assert peak(64) - peak(8) < 25 * 40 * 4 * 4


def test_correlation_cross_entropy__by_hand() -> None:
    student, teacher = random(1, 3, 4), random(1, 3, 2, seed=1)
    rows = []
    for i in range(3):
        p = np.exp((teacher[0] @ teacher[0, i] / 0.5).numpy())
        q = np.exp((student[0] @ student[0, i] / 0.5).numpy())
        rows.append(-(p / p.sum() * np.log(q / q.sum())).sum())
    loss = correlation_cross_entropy(student @ student.mT, teacher @ teacher.mT, tau=0.5)
    np.testing.assert_allclose(loss, [np.mean(rows)], rtol=1e-5)


@pytest.mark.parametrize("block", [1, 3 * 9 * 16, 2**21])
@pytest.mark.parametrize("of_boxes", [False, True])
def test_spatial_loss__blocks_equal_the_plain_one(block: int, of_boxes: bool) -> None:
    student, teacher = F.normalize(random(2, 16, 6, 6), dim=1), random(2, 8, 12, 12, seed=1)
    where, image = boxes(7, 2)
    theirs = region_tokens(teacher, where, image, 3)

    def plain(x: Tensor) -> Tensor:
        ours = region_tokens(x, where, image, 3)
        return correlation_cross_entropy(ours @ ours.mT, theirs @ theirs.mT).mean()

    def blocks(x: Tensor) -> Tensor:
        target = theirs if of_boxes else teacher
        return spatial_loss(x, target, where, image, side=3, block=block)

    for mine, expected in zip(
        value_and_gradient(blocks, student), value_and_gradient(plain, student), strict=True
    ):
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-6)


def test_spatial_loss__factor_equals_the_map() -> None:
    """RoIAlign is linear: the factor of the whole map has the correlations of every box."""
    features = F.normalize(random(1, 24, 8, 8), dim=1)
    codec = LowRank(rank=24, dtype="fp32")
    tokens = features[0].flatten(1).T.numpy()
    factor = torch.from_numpy(codec.decode(codec.encode(tokens)[0])).T.unflatten(1, (8, 8))[None]
    student, (where, image) = F.normalize(random(1, 16, 8, 8, seed=1), dim=1), boxes(5, 1)
    torch.testing.assert_close(
        spatial_loss(student, factor, where, image), spatial_loss(student, features, where, image)
    )


@pytest.mark.parametrize("side", [1, 3, 7])
def test_pooled_diagonal__is_that_of_the_pooled_tokens(side: int) -> None:
    diagonal, (where, image) = random(6, 8, 5).abs(), boxes(6, 1)
    weights = region_tokens(torch.eye(40).unflatten(1, (8, 5))[None], where, image, side)
    expected = weights @ diagonal.flatten(1).diag_embed() @ weights.mT
    torch.testing.assert_close(pooled_diagonal(diagonal, where, side), expected)


def test_spatial_loss__what_a_cut_factor_lacks_of_its_tokens_norm_is_made_up_for() -> None:
    basis = torch.linalg.qr(random(64, 64)).Q
    features = random(1, 64, 8, 8) * (torch.arange(64) < 8).float().add(0.1).view(1, 64, 1, 1)
    features = F.normalize(torch.einsum("bchw,cd->bdhw", features, basis), dim=1)
    codec = LowRank(rank=8)
    decoded = codec.decode(codec.encode(features[0].flatten(1).T.numpy())[0])
    factor = torch.from_numpy(decoded).T.unflatten(1, (8, 8))[None]
    student, (where, image) = F.normalize(random(1, 16, 8, 8, seed=1), dim=1), boxes(5, 1)
    boxes_alone = region_tokens(factor, where, image, 7)
    full, map_, alone = (
        spatial_loss(student, teacher, where, image) for teacher in (features, factor, boxes_alone)
    )
    assert abs(map_ - full) < 0.2 * abs(alone - full)


def test_spatial_loss__no_box() -> None:
    none = torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)
    value, gradient = value_and_gradient(
        lambda x: spatial_loss(x, random(1, 8, 4, 4), *none), random(1, 16, 4, 4)
    )
    assert value == 0 and not gradient.any()
