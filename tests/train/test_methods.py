import pytest

from shards.errors import DenseCLIError
from train.methods import METHODS, TERMS, method_weights, parse_losses


def test_methods__name_known_terms() -> None:
    assert all(set(weights) <= set(TERMS) for weights in METHODS.values())


def test_method_weights__unknown_lists_known() -> None:
    with pytest.raises(DenseCLIError, match="'densvlm'") as caught:
        method_weights("densvlm")
    assert "densevlm" in caught.value.hint


def test_parse_losses__weights() -> None:
    assert parse_losses(["region_kl=0.25"]) == {"region_kl": 0.25}


@pytest.mark.parametrize("word", ["region=1", "region_kl", "region_kl=", "region_kl=-1", "region_kl=nan"])
def test_parse_losses__refuses(word: str) -> None:
    with pytest.raises(DenseCLIError):
        parse_losses([word])
