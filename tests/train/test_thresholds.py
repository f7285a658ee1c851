"""Thresholds by category that keep a share of its regions."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from densecli.train.losses import kept_regions
from densecli.train.thresholds import LEAST, quantile_thresholds


@given(st.integers(0, 10_000), st.sampled_from([0.2, 0.5, 0.8, 1.0]), st.booleans())
def test_thresholds__keep_at_least_the_share_of_every_category(seed, keep, ties):
    rng = np.random.default_rng(seed)
    best = rng.integers(0, 3, 300)
    confidence = rng.uniform(0.3, 1, 300).astype(np.float32) ** (1 + best)
    if ties:
        confidence = confidence.round(1)
    thresholds = quantile_thresholds(confidence, best, 5, keep)
    for category in range(3):
        own = confidence[best == category]
        if len(own) < LEAST:
            continue
        kept = own > thresholds[category]
        assert kept.mean() >= keep - 1e-9
        # No more than the share, but for regions as confident as the last one kept.
        surer = own > own[kept].min()
        assert surer.sum() <= np.ceil(keep * len(own)) + 1


def test_thresholds__a_rare_category_gets_that_of_all():
    confidence = np.linspace(0, 1, 100, dtype=np.float32)
    best = np.r_[np.zeros(95, int), np.ones(5, int)]
    thresholds = quantile_thresholds(confidence, best, 3, 0.5)
    assert thresholds[1] == thresholds[2] == pytest.approx(np.quantile(confidence, 0.5, method="lower"))
    assert quantile_thresholds(np.zeros(0), np.zeros(0, int), 2, 0.5).tolist() == [0, 0]


def test_kept_regions__by_the_threshold_of_each_ones_category():
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.3, 0.6, 0.1]])
    assert kept_regions(teacher, torch.tensor([0.8, 0.65, 0.5])).tolist() == [False, True, False]
    assert kept_regions(teacher, 0.65).tolist() == [True, True, False]
