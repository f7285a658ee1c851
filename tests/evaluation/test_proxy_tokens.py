"""The proxy-token score: 1 where attention is even, high where all tokens attend to a few."""

import pytest
import torch

from densecli.evaluation.proxy_tokens import proxy_score

ALL = torch.ones(200, dtype=torch.bool)


def test_proxy_score__even_attention_is_one():
    assert proxy_score(torch.full((200, 200), 1 / 201), ALL) == pytest.approx(1)


def test_proxy_score__everybody_attending_to_two_of_200_tokens_is_100():
    attention = torch.zeros(200, 200)
    attention[:, [3, 70]] = 0.5
    assert proxy_score(attention, ALL) == pytest.approx(100)


def test_proxy_score__tokens_that_attend_to_themselves_are_no_proxies():
    assert proxy_score(torch.eye(200), ALL) == pytest.approx(1)


def test_proxy_score__padding_neither_attends_nor_is_attended_to():
    attention = torch.full((200, 200), 0.001)
    attention[:, 199] = 0.9
    attention[199, :] = 0
    attention[199, 5] = 1
    seen = ALL.clone()
    seen[199] = False
    assert proxy_score(attention, seen) == pytest.approx(1)
