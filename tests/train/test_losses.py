"""decoupled_kl: what each group contrasts with, what is kept, and its edges. The plainer region losses."""

import math

import pytest
import torch
import torch.nn.functional as F

from densecli.train.config import DECOUPLING_ROWS
from densecli.train.losses import (
    DECOUPLING,
    decoupled_kl,
    kept_regions,
    region_cosine,
    region_text,
    retemper,
    teacher_probs,
    token_infonce,
)

THING = torch.tensor([True, True, True, False, False])


def cosines(seed: int, regions: int = 24) -> torch.Tensor:
    return torch.randn(regions, len(THING), generator=torch.Generator().manual_seed(seed)) * 0.03


def group(teacher: torch.Tensor, thing: bool) -> torch.Tensor:
    return teacher[THING[teacher.argmax(dim=-1)] == thing]


@pytest.mark.parametrize(
    ("variant", "thing_sees_stuff", "stuff_sees_thing"),
    [("none", True, True), ("full", False, False), ("stuff-only", True, False), ("densevlm", False, True)],
)
def test_decoupled_kl__variants(variant: str, thing_sees_stuff: bool, stuff_sees_thing: bool) -> None:
    """A class outside a group's contrast set gets no gradient from that group's regions."""
    for thing, sees_other in ((True, thing_sees_stuff), (False, stuff_sees_thing)):
        teacher = group(teacher_probs(cosines(0), tau=0.02), thing)
        student = cosines(1)[: len(teacher)].requires_grad_()
        decoupled_kl(student, teacher, THING, variant=variant, theta=0.0).backward()
        assert student.grad is not None
        assert bool(student.grad[:, thing != THING].any()) == sees_other
        assert bool(student.grad[:, thing == THING].all())


# DenseVLM's table 2 as it is printed: the categories that a thing region and a stuff region are told apart
# from, row by row.
TABLE_2 = {
    "1": ({"thing", "stuff"}, {"thing", "stuff"}),
    "2": ({"thing"}, {"stuff"}),
    "3": ({"thing", "stuff"}, {"stuff"}),
    "4": ({"thing"}, {"thing", "stuff"}),
}


def kl_of_a_region(
    student: torch.Tensor, teacher: torch.Tensor, of: tuple[set[str], set[str]]
) -> torch.Tensor:
    """KL over the category subset of one region, both sides renormalised over it; scalar by scalar."""
    kinds = ["thing" if thing else "stuff" for thing in THING.tolist()]
    best = max(range(len(kinds)), key=lambda c: float(teacher[c]))
    subset = [c for c, kind in enumerate(kinds) if kind in of[0 if kinds[best] == "thing" else 1]]
    mass = sum(teacher[c] for c in subset)
    exponentials = {c: torch.exp(student[c] / 0.01) for c in subset}
    total = sum(exponentials.values())
    return sum(
        (teacher[c] / mass * torch.log(teacher[c] / mass / (exponentials[c] / total)) for c in subset),
        start=torch.zeros((), dtype=torch.float64),
    )


@pytest.mark.parametrize("row", TABLE_2)
def test_decoupled_kl__every_row_of_densevlms_table(row: str) -> None:
    teacher, student, own = teacher_probs(cosines(0), 0.02), cosines(1), cosines(1).double()
    of_things = THING[teacher.argmax(dim=-1)]
    assert of_things.any() and not of_things.all()
    student.requires_grad_()
    own.requires_grad_()
    loss = decoupled_kl(student, teacher, THING, variant=DECOUPLING_ROWS[row], theta=0.3)
    kept = [r for r in range(len(teacher)) if float(teacher[r].max()) > 0.3]
    terms = [kl_of_a_region(own[r], teacher[r].double(), TABLE_2[row]) for r in kept]
    expected = torch.stack(terms).mean()
    (gradient,) = torch.autograd.grad(loss, student)
    (expected_gradient,) = torch.autograd.grad(expected, own)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("beta", "variant"), [(0.0, "densevlm"), (1.0, "none")])
def test_decoupled_kl__beta_joins_densevlm_and_none(beta: float, variant: str) -> None:
    student, teacher = cosines(1), teacher_probs(cosines(0))
    assert decoupled_kl(student, teacher, THING, beta=beta) == decoupled_kl(
        student, teacher, THING, variant=variant
    )


def test_decoupled_kl__beta_offsets_stuff_logits_on_both_sides() -> None:
    beta, tau = 0.3, 0.01
    teacher_cos, student_cos = cosines(0), cosines(1)
    teacher = teacher_probs(teacher_cos, tau)
    offset = torch.where(THING, 0.0, torch.tensor(beta).log())
    shift = torch.where(THING[teacher.argmax(dim=-1)][:, None], offset, torch.zeros(len(THING)))
    p = (teacher_cos / tau + shift).log_softmax(dim=-1)
    q = (student_cos / tau + shift).log_softmax(dim=-1)
    expected = (p.exp() * (p - q)).sum(dim=-1).mean()
    torch.testing.assert_close(decoupled_kl(student_cos, teacher, THING, theta=0.0, beta=beta), expected)


def test_decoupled_kl__zero_where_student_agrees() -> None:
    teacher_cos = cosines(0)
    loss = decoupled_kl(teacher_cos, teacher_probs(teacher_cos), THING)
    torch.testing.assert_close(loss, torch.tensor(0.0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("reduction", ["regions", "groups"])
@pytest.mark.parametrize("regions", [0, 4])
def test_decoupled_kl__no_kept_region(reduction: str, regions: int) -> None:
    student = cosines(1, regions).requires_grad_()
    teacher = torch.full((regions, len(THING)), 1 / len(THING))
    loss = decoupled_kl(student, teacher, THING, theta=0.3, reduction=reduction)  # type: ignore[arg-type]
    loss.backward()
    assert loss == 0
    assert student.grad is not None and not student.grad.any()


def test_decoupled_kl__one_group_only() -> None:
    """An empty group adds 0, so both reductions are the mean of the other one."""
    teacher = group(teacher_probs(cosines(0)), thing=True)
    student = cosines(1)[: len(teacher)]
    by_group = decoupled_kl(student, teacher, THING, reduction="groups")
    torch.testing.assert_close(by_group, decoupled_kl(student, teacher, THING))


def test_decoupled_kl__theta_drops_unsure_regions() -> None:
    student, teacher = cosines(1), teacher_probs(cosines(0), tau=0.05)
    theta = float(teacher.amax(dim=-1).median())
    kept = kept_regions(teacher, theta)
    assert 0 < kept.sum() < len(kept)
    alone = decoupled_kl(student[kept], teacher[kept], THING, theta=0.0)
    torch.testing.assert_close(decoupled_kl(student, teacher, THING, theta=theta), alone)


def test_decoupled_kl__exact_zeros_in_teacher() -> None:
    teacher = torch.eye(len(THING))
    student = cosines(1, len(THING)).requires_grad_()
    loss = decoupled_kl(student, teacher, THING)
    loss.backward()
    assert torch.isfinite(loss) and student.grad is not None and torch.isfinite(student.grad).all()


def test_retemper__equals_softmax_at_the_other_temperature() -> None:
    torch.testing.assert_close(
        retemper(teacher_probs(cosines(0), 0.01), 0.01, 0.02, THING), teacher_probs(cosines(0), 0.02)
    )


def stored(teacher: torch.Tensor, names: torch.Tensor) -> torch.Tensor:
    """As a store has it that names these classes (R, D) alone."""
    other = teacher.masked_fill(names, 0)
    remainders = [other[:, THING].sum(dim=1), other[:, ~THING].sum(dim=1)]
    return torch.cat([teacher.masked_fill(~names, 0), torch.stack(remainders, dim=1)], dim=1)


def test_retemper__equal_classes_taken_together_stay_together() -> None:
    teacher = torch.tensor([[0.6, 0.05, 0.05, 0.2, 0.1]])
    names = torch.tensor([[True, False, False, True, False]])
    torch.testing.assert_close(
        retemper(stored(teacher, names), 0.01, 0.03, THING),
        stored(retemper(teacher, 0.01, 0.03, THING), names),
    )


@pytest.mark.parametrize("variant", DECOUPLING)
def test_decoupled_kl__every_class_named_is_the_full_distribution(variant: str) -> None:
    teacher = teacher_probs(cosines(0), 0.02)
    gradients = []
    for told in (teacher, stored(teacher, teacher > 0)):
        student = cosines(1).requires_grad_()
        loss = decoupled_kl(student, told, THING, variant=variant, theta=0.0)
        gradients.append((loss, *torch.autograd.grad(loss, student)))
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.parametrize("variant", DECOUPLING)
def test_decoupled_kl__classes_not_named_cost_their_own_divergence_and_no_more(variant: str) -> None:
    """Never more than the full one, and still zero, with no gradient, where the student agrees."""
    teacher = teacher_probs(cosines(0), 0.02)
    told = stored(teacher, teacher >= teacher.topk(2, dim=1).values[:, 1:])
    full, coarse = (
        decoupled_kl(cosines(1), t, THING, variant=variant, theta=0.0, tau=0.02) for t in (teacher, told)
    )
    assert 0.3 * full < coarse < full
    student = cosines(0).requires_grad_()
    loss = decoupled_kl(student, told, THING, variant=variant, theta=0.0, tau=0.02)
    loss.backward()
    assert student.grad is not None
    assert abs(float(loss.detach())) < 1e-6 and float(student.grad.abs().max()) < 1e-4


def test_region_cosine__needs_no_unit_norm() -> None:
    student = torch.tensor([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    teacher = torch.tensor([[5.0, 0.0], [0.0, -1.0], [0.0, 2.0]])
    torch.testing.assert_close(
        region_cosine(student, teacher), torch.tensor(1 - (1 - 1 + 0.5**0.5) / 3), atol=1e-6, rtol=0
    )


def test_region_text__is_the_kl_to_a_sure_teacher() -> None:
    student, labels = cosines(1), torch.arange(24) % len(THING)
    sure = torch.eye(len(THING))[labels]
    torch.testing.assert_close(
        region_text(student, labels), decoupled_kl(student, sure, THING, variant="none")
    )


@pytest.mark.parametrize("loss", ["cosine", "text"])
def test_region_losses__no_region(loss: str) -> None:
    student = torch.zeros(0, 5, requires_grad=True)
    labels = torch.zeros(0, dtype=torch.long)
    value = region_cosine(student, student) if loss == "cosine" else region_text(student, labels)
    value.backward()
    assert value == 0


def test_token_infonce__is_a_loop_over_tokens() -> None:
    student, teacher = (F.normalize(torch.randn(3, 5, 8), dim=-1) for _ in range(2))
    student.requires_grad_()
    expected = 0.0
    for crop in range(3):
        for i in range(5):
            similar = [(student[crop, i] @ teacher[crop, j] / 0.2).exp().item() for j in range(5)]
            expected -= math.log(similar[i] / sum(similar)) / 15
    loss = token_infonce(student, teacher, 0.2)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert student.grad is not None and student.grad.any()


def test_token_infonce__without_a_crop_is_zero() -> None:
    nothing = torch.zeros(0, 5, 8, requires_grad=True)
    loss = token_infonce(nothing, torch.zeros(0, 5, 8), 0.2)
    loss.backward()
    assert loss.item() == 0
