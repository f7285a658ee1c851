import torch

from densecli.models.pooling import mask_pool, region_pool


def test_region_pool__a_box_over_one_cell_is_that_cell() -> None:
    dense = torch.randn(2, 5, 4, 8)
    boxes = torch.tensor([[2 / 8, 1 / 4, 3 / 8, 2 / 4], [7 / 8, 3 / 4, 1.0, 1.0]])
    pooled = region_pool(dense, boxes, torch.tensor([1, 0]), normalize=False)
    torch.testing.assert_close(pooled[0], dense[1, :, 1, 2])
    torch.testing.assert_close(pooled[1], dense[0, :, 3, 7])


def test_region_pool__unit_norm_and_gradients_and_no_box() -> None:
    dense = torch.randn(1, 5, 4, 4, requires_grad=True)
    pooled = region_pool(dense, torch.tensor([[0.1, 0.2, 0.9, 0.7]]), torch.tensor([0]))
    torch.testing.assert_close(pooled.norm(dim=1), torch.ones(1))
    pooled[0, 0].backward()
    assert dense.grad is not None and dense.grad.abs().sum() > 0
    assert region_pool(dense, torch.zeros(0, 4), torch.zeros(0, dtype=torch.long)).shape == (0, 5)


def test_region_pool__bfloat16_maps_pool_in_float32() -> None:
    dense = torch.randn(1, 5, 4, 4).bfloat16()
    pooled = region_pool(dense, torch.tensor([[0.0, 0.0, 1.0, 1.0]]), torch.tensor([0]), normalize=False)
    torch.testing.assert_close(pooled[0], dense.float().mean(dim=(2, 3))[0])


def test_mask_pool__is_the_mean_over_the_mask_of_its_own_image() -> None:
    dense = torch.randn(3, 5, 4, 4)
    masks = torch.rand(6, 4, 4) > 0.5
    pooled = mask_pool(dense, masks, [2, 0, 4], normalize=False)
    for row, mask, i in zip(pooled, masks, [0, 0, 2, 2, 2, 2], strict=True):
        torch.testing.assert_close(row, dense[i][:, mask].mean(dim=1))


def test_mask_pool__weights_are_shares_of_tokens() -> None:
    dense, weights = torch.randn(1, 5, 2, 3), torch.rand(1, 2, 3).half()
    pairs = [(weights[0, y, x].float(), dense[0, :, y, x]) for y in range(2) for x in range(3)]
    expected = sum(w * token for w, token in pairs) / sum(w for w, _ in pairs)
    torch.testing.assert_close(mask_pool(dense, weights, [1])[0], expected / expected.norm())


def test_mask_pool__a_mask_without_tokens_gives_zeros() -> None:
    pooled = mask_pool(torch.randn(1, 5, 2, 2), torch.zeros(1, 2, 2, dtype=torch.bool), [1])
    assert torch.equal(pooled, torch.zeros(1, 5))
