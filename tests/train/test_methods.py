import pytest

from densecli.commands.train import train
from densecli.core.errors import DenseCLIError
from densecli.train.config import DECOUPLING_ROWS, TrainConfig
from densecli.train.losses import DECOUPLING
from densecli.train.methods import METHODS, find_method
from densecli.train.terms import term_and_kind


def test_methods__what_each_reads() -> None:
    reads = {name: [term_and_kind(loss) for loss in method.losses] for name, method in METHODS.items()}
    crops, text = ("region_cosine", "crops"), ("region_text", "labels")
    assert reads == {
        "densevlm": [("region_kl", "labels")],
        "clipself": [crops],
        "regiontext": [text],
        "declip": [crops, ("context", "gram")],
        "declip-released": [crops, ("context", "gram")],
        "sc-clipself": [crops, ("spatial", "self")],
        "sc-regiontext": [text, ("spatial", "self")],
        "r-sc-clipself": [crops, ("spatial", "refined")],
        "r-sc-regiontext": [text, ("spatial", "refined")],
        "r-sc-v": [("spatial", "refined")],
    }


def test_find_method__unknown_lists_known() -> None:
    with pytest.raises(DenseCLIError, match="'densvlm'") as caught:
        find_method("densvlm")
    assert "densevlm" in caught.value.hint


def given_losses(*losses: str) -> dict[str, float]:
    """What `train --loss` makes of them, each checked as a training does."""
    found = train.parse([word for loss in losses for word in ("--loss", loss)]).given["losses"]
    for loss in found:
        term_and_kind(loss)
    return found


def test_losses__weights() -> None:
    words = ["region_kl=0.25", "spatial:gram=2", "spatial=1"]
    assert given_losses(*words) == {"region_kl": 0.25, "spatial:gram": 2.0, "spatial": 1.0}


@pytest.mark.parametrize(
    "word",
    [
        "region=1",
        "region_kl",
        "region_kl=",
        "region_kl=-1",
        "region_kl=nan",
        "context:labels=1",
        "context:=x",
    ],
)
def test_losses__refuses(word: str) -> None:
    with pytest.raises(DenseCLIError):
        given_losses(word)


def test_weights__spatial_beside_regions_counts_twice_for_a_large_student() -> None:
    for _, method in METHODS.items():
        small, large = (method.weights(large=size) for size in (False, True))
        assert small == method.losses and small.keys() == large.keys()
        for loss in small:
            spatial = loss.startswith("spatial") and len(small) > 1
            assert (small[loss], large[loss]) == (0.2, 0.4) if spatial else small[loss] == large[loss]


@pytest.mark.parametrize(("word", "name"), [*DECOUPLING_ROWS.items(), ("stuff-only", "stuff-only")])
def test_decoupling__by_row_or_by_name(word: str, name: str) -> None:
    for value in (word, *([int(word)] if word.isdigit() else [])):
        assert TrainConfig(store="", run="", decoupling=value).decoupling == name
    assert TrainConfig(store="", run="").decoupling == "densevlm"
    assert set(DECOUPLING) == set(DECOUPLING_ROWS.values())
