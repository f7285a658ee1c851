"""Orders that runs and stores rely on: they must never change."""

from densecli.core.random_words import random_order, random_words


def test_random_order__known_values() -> None:
    assert random_order("7/3/1", 8).tolist() == [4, 5, 1, 2, 3, 6, 0, 7]
    assert random_order("categories/2/a", 8).tolist() == [4, 3, 6, 2, 0, 5, 1, 7]
    assert random_order("a", 0).tolist() == []


def test_random_words__fewer_are_the_first_ones() -> None:
    assert random_words("a", 3).tolist() == random_words("a", 9)[:3].tolist() != random_words("b", 3).tolist()
