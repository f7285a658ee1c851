"""Terms: what of the student and of the batch each compares."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.errors import DenseCLIError
from densecli.models.pooling import region_tokens
from densecli.train.batch import Batch
from densecli.train.correlation import context_loss, unit_tokens
from densecli.train.terms import StudentOutput, Term
from densecli.train.terms.context import Context, context_tokens
from densecli.train.terms.region_cosine import RegionCosine
from densecli.train.terms.region_text import RegionText, sampled_categories
from densecli.train.terms.spatial import Spatial


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batch(**targets: Tensor) -> Batch:
    boxes = torch.tensor([[0.0, 0.0, 0.5, 0.5], [0.5, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]])
    index, images = torch.tensor([0, 0, 1]), torch.zeros(2, 3, 1, 1)
    photos = torch.tensor([[0.0, 0.0, 1.0, 0.75], [0.0, 0.0, 0.5, 1.0]])
    return Batch(
        images=images,
        boxes=boxes,
        batch_index=index,
        photos=photos,
        targets=targets,
        keys=("a", "b"),
        epoch=0,
    )


def student(context: dict[str, Tensor] | None = None) -> StudentOutput:
    return StudentOutput(random(2, 16, 4, 4), F.normalize(random(3, 16), dim=1), context or {})


def call(term: Term, student: StudentOutput, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the batch alone."""
    return term(student, batch, term.counts(batch))


def test_context_tokens__mean_cosines_of_q_and_k() -> None:
    q, k = random(2, 8, 4, 4, seed=1), random(2, 8, 4, 4, seed=2)
    both = context_tokens(student({"q": q, "k": k}))
    mean = sum(unit_tokens(x) @ unit_tokens(x).mT for x in (q, k)) / 2
    torch.testing.assert_close(both @ both.mT, mean)


def test_context__reads_the_context_features_where_there_are_some() -> None:
    factors = batch(gram=random(2, 4, 4, 8, seed=3))
    q = random(2, 8, 4, 4, seed=1)
    alone, _ = call(Context("gram"), StudentOutput(q, q, {}), factors)
    assert (
        call(Context("gram"), student({"q": q}), factors)[0]
        == alone
        != call(Context("gram"), student(), factors)[0]
    )


def test_context__another_grid_is_resampled_as_the_features_would_be() -> None:
    """Averages of a factor's tokens have the cosines of the averages of the features themselves."""
    features = F.normalize(random(2, 12, 8, 8, seed=3), dim=1)
    basis = torch.linalg.qr(random(12, 12, seed=4)).Q
    factor = (features.permute(0, 2, 3, 1) @ basis).contiguous()
    fine, _ = call(Context("gram"), student(), batch(gram=factor))
    coarse = F.interpolate(features, size=(4, 4), mode="bilinear", align_corners=False, antialias=True)
    torch.testing.assert_close(fine, context_loss(context_tokens(student()), unit_tokens(coarse)))


def test_spatial__zero_gradient_only_where_student_agrees() -> None:
    """Cross entropy is least where both sides are the same, whatever the norm of the student's tokens."""
    dense = F.normalize(random(2, 16, 4, 4), dim=1)
    target = batch(self=dense.permute(0, 2, 3, 1))
    gradients = []
    for x in (dense * 5, random(2, 16, 4, 4, seed=5)):
        x = x.clone().requires_grad_()
        call(Spatial("self", tau=0.2, side=7), StudentOutput(x, x, {}), target)[0].backward()
        assert x.grad is not None
        gradients.append(float(x.grad.abs().max()))
    assert gradients[0] < 1e-6 < 1e-4 < gradients[1]


def test_region_text__leaves_out_what_the_teacher_doubts() -> None:
    text = F.normalize(random(4, 16, seed=1), dim=1)
    teacher = torch.tensor([[0.9, 0.1, 0, 0], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1.0]])
    term = RegionText(text, tau=0.1, theta=0.3, kind="labels")
    loss, extra = call(term, student(), batch(labels=teacher))
    regions = student().regions[[0, 2]]
    expected = F.cross_entropy(regions @ text.T / 0.1, torch.tensor([0, 3]))
    torch.testing.assert_close(loss, expected)
    assert extra["labelled"] == pytest.approx(2 / 3)


def test_region_cosine__embeddings_of_another_model(full_store) -> None:
    column = full_store.store.find("targets", "crops-scenes-s")
    with pytest.raises(
        DenseCLIError, match="crops-scenes-s have 8-dimensional embeddings, but the student's have 16"
    ):
        call(RegionCosine(column), student(), batch(crops=random(3, 8)))


def test_terms__bf16_features_are_compared_in_fp32() -> None:
    q = random(2, 8, 4, 4, seed=1)
    targets = batch(gram=random(2, 4, 4, 8, seed=3))
    loss, _ = call(Context("gram"), student({"q": q.bfloat16()}), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, call(Context("gram"), student({"q": q.bfloat16().float()}), targets)[0])


def test_region_text__as_released_is_a_binary_cross_entropy_over_sampled_categories() -> None:
    text = F.normalize(random(12, 16, seed=1), dim=1)
    labels = torch.tensor([3, 5, 3])
    teacher = torch.full((3, 12), 0.01)
    teacher[range(3), labels] = 0.9
    options = RegionText.Options(loss="bce", sampled=4)
    term = RegionText(text, tau=0.5, theta=0.3, kind="labels", options=options)
    said, about = student(), batch(labels=teacher)
    value, _ = call(term, said, about)
    sampled = sampled_categories(labels, about.batch_index, about.keys, 0, count=4, categories=12)
    assert sampled.sum(dim=1).tolist() == [4, 4, 4] and sampled[0].equal(sampled[1])
    assert sampled[0, 3] and sampled[0, 5] and sampled[2, 3] and not sampled[0].equal(sampled[2])
    expected = 0.0
    for region, label in enumerate(labels.tolist()):
        for category in torch.nonzero(sampled[region]).flatten().tolist():
            p = torch.sigmoid((said.regions[region] @ text[category]) / 0.5)
            expected -= float((p if category == label else 1 - p).log()) / 3
    assert float(value) == pytest.approx(expected, rel=1e-5)


def test_region_text__categories_are_those_of_the_photo_and_the_epoch() -> None:
    labels, photos = torch.tensor([0, 1]), torch.tensor([0, 1])

    def of(keys: tuple[str, ...], epoch: int) -> Tensor:
        return sampled_categories(labels, photos, keys, epoch, count=6, categories=40)

    assert of(("a", "b"), 0).equal(of(("a", "b"), 0)) and not of(("a", "b"), 0).equal(of(("a", "b"), 1))
    alone = sampled_categories(labels[1:], photos[:1], ("b",), 0, count=6, categories=40)
    assert alone.equal(of(("a", "b"), 0)[1:])
    assert sampled_categories(labels, photos, ("a", "b"), 0, count=99, categories=40).all()


@pytest.mark.parametrize("options", [{"loss": "hinge"}, {"sampled": 0}])
def test_region_text__refuses_options(options) -> None:
    with pytest.raises(DenseCLIError, match=next(iter(options))):
        RegionText(random(2, 4), tau=1, theta=0, kind="labels", options=RegionText.Options(**options))


def test_spatial__another_temperature_of_the_teacher() -> None:
    tokens = F.normalize(random(3, 9, 8, seed=4), dim=2)
    about, said = batch(refined=tokens), student()
    same, _ = call(Spatial("refined", tau=0.2, side=3), said, about)
    assert call(Spatial("refined", tau=0.2, side=3, tau_teacher=0.2), said, about)[0] == same
    sharper, _ = call(Spatial("refined", tau=0.2, side=3, tau_teacher=0.1), said, about)
    teacher = (tokens @ tokens.mT / 0.1).softmax(dim=-1)
    ours = region_tokens(F.normalize(said.dense, dim=1), about.boxes, about.batch_index, 3)
    ours = ours / 0.2**0.5
    expected = -(teacher * (ours @ ours.mT).log_softmax(dim=-1)).sum(dim=-1).mean()
    torch.testing.assert_close(sharper, expected)


def test_spatial__the_whole_photo_as_one_box() -> None:
    """R-SC's table 14: "global" is the same loss with the box of each photo, without the padding."""
    output, map_ = student(), F.normalize(random(2, 4, 4, 6, seed=3), dim=-1)
    mine = batch(self=map_)
    options = Spatial.Options(boxes="photo")
    loss, _ = call(Spatial("self", tau=0.2, side=4, options=options), output, mine)
    expected = []
    for photo in range(2):
        box, first = mine.photos[photo][None], torch.zeros(1, dtype=torch.long)
        z = region_tokens(F.normalize(output.dense[photo : photo + 1], dim=1), box, first, 4)[0]
        t = region_tokens(map_[photo : photo + 1].permute(0, 3, 1, 2), box, first, 4)[0]
        p, log_q = (t @ t.T / 0.2).softmax(dim=1), (z @ z.T / 0.2).log_softmax(dim=1)
        expected.append(-(p * log_q).sum(dim=1).mean())
    torch.testing.assert_close(loss, torch.stack(expected).mean(), rtol=1e-5, atol=1e-5)
    regions, _ = call(Spatial("self", tau=0.2, side=4), output, mine)
    assert not torch.isclose(loss, regions)


def test_spatial__frobenius_norm_of_the_difference() -> None:
    output, map_ = student(), F.normalize(random(2, 4, 4, 6, seed=3), dim=-1)
    mine = batch(self=map_)
    options = Spatial.Options(compare="frobenius")
    loss, _ = call(Spatial("self", tau=0.2, side=2, options=options), output, mine)
    z = region_tokens(F.normalize(output.dense, dim=1), mine.boxes, mine.batch_index, 2)
    t = region_tokens(map_.permute(0, 3, 1, 2), mine.boxes, mine.batch_index, 2)
    expected = sum(((t[i] @ t[i].T - z[i] @ z[i].T) ** 2).sum().sqrt() for i in range(3)) / 3
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("self", {"boxes": "all"}, "spatial.boxes cannot be 'all'"),
        ("self", {"compare": "cosine"}, "spatial.compare cannot be 'cosine'"),
        ("refined", {"boxes": "photo"}, "tokens of its own boxes"),
    ],
)
def test_spatial__refuses(kind: str, options: dict[str, str], message: str) -> None:
    with pytest.raises(DenseCLIError, match=message):
        Spatial(kind, tau=0.2, side=2, options=Spatial.Options(**options))
