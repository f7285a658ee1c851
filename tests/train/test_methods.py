import pytest

from densecli.commands.train import train
from densecli.core.errors import DenseCLIError
from densecli.train.config import DECOUPLING_ROWS, TrainConfig
from densecli.train.losses import DECOUPLING
from densecli.train.methods import METHODS, find_method
from densecli.train.steps import warmup_steps
from densecli.train.terms import term_and_kind


def test_methods__what_each_reads() -> None:
    reads = {name: [term_and_kind(loss) for loss in method.losses] for name, method in METHODS.items()}
    crops, text = ("region_cosine", "crops"), ("region_text", "labels")
    assert reads == {
        "densevlm": [("region_kl", "labels")],
        "clipself": [crops],
        "feature-kd": [crops],
        "logit-kd": [("region_kl", "crop-labels")],
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
        small, large = (method.for_student(name).losses for name in ("eva02-b16", "eva02-l14-336"))
        assert small == method.losses and small.keys() == large.keys()
        for loss in small:
            spatial = loss.startswith("spatial") and len(small) > 1
            assert (small[loss], large[loss]) == (0.2, 0.4) if spatial else small[loss] == large[loss]


@pytest.mark.parametrize(("word", "name"), [*DECOUPLING_ROWS.items(), ("stuff-only", "stuff-only")])
def test_decoupling__by_row_or_by_name(word: str, name: str) -> None:
    for value in (word, *([int(word)] if word.isdigit() else [])):
        assert TrainConfig(store="store", run="run", decoupling=value).decoupling == name
    assert TrainConfig(store="store", run="run").decoupling == "densevlm"
    assert set(DECOUPLING) == set(DECOUPLING_ROWS.values())


# Of the papers: lr, batch of a GPU, beta 2, alpha for B and L, canvas for B and L, regions, read-out.
SETTINGS = {
    "densevlm": (1e-5, 48, 0.98, (0.9, 0.9), (512, 512), "grid-paper", "value"),
    "feature-kd": (1e-5, 48, 0.98, (0.9, 0.9), (512, 512), "grid-paper", "value"),
    "logit-kd": (1e-5, 48, 0.98, (0.9, 0.9), (512, 512), "grid-paper", "value"),
    "clipself": (1e-5, 2, 0.98, (0.7, 0.95), (1024, 896), "grid-clipself", "value"),
    "declip": (1e-5, 2, 0.98, (0.7, 0.95), (1024, 896), "grid-declip", "qq+scale"),
    "declip-released": (1e-5, 2, 0.999, (0.7, 0.95), (560, 560), "grid-clipself", "qq"),
    "regiontext": (2e-5, 4, 0.98, (0.7, 0.95), (1024, 896), "proposals", "value"),
    "sc-clipself": (2e-5, 4, 0.98, (0.7, 0.95), (1024, 896), "proposals", "value"),
    "sc-regiontext": (2e-5, 4, 0.98, (0.7, 0.95), (1024, 896), "proposals", "value"),
    "r-sc-clipself": (2e-5, 4, 0.98, (0.7, 0.95), (1024, 896), "proposals", "value"),
    "r-sc-regiontext": (2e-5, 4, 0.98, (0.7, 0.95), (1024, 896), "proposals", "value"),
    "r-sc-v": (2e-5, 4, 0.98, (0.7, 0.95), (1024, 896), "proposals", "value"),
}
LOSSES = {
    "densevlm": [{"region_kl": 1}] * 2,
    "feature-kd": [{"region_cosine": 1}] * 2,
    "logit-kd": [{"region_kl:crop-labels": 1}] * 2,
    "clipself": [{"region_cosine": 1}] * 2,
    "declip": [{"region_cosine": 1, "context": 0.25}] * 2,
    "declip-released": [{"region_cosine": 1, "context": 0.1}] * 2,
    "regiontext": [{"region_text": 1}] * 2,
    "sc-clipself": [{"region_cosine": 1, "spatial:self": weight} for weight in (0.2, 0.4)],
    "sc-regiontext": [{"region_text": 1, "spatial:self": weight} for weight in (0.2, 0.4)],
    "r-sc-clipself": [{"region_cosine": 1, "spatial:refined": weight} for weight in (0.2, 0.4)],
    "r-sc-regiontext": [{"region_text": 1, "spatial:refined": weight} for weight in (0.2, 0.4)],
    "r-sc-v": [{"spatial:refined": 1}] * 2,
}


@pytest.mark.parametrize("large", [False, True], ids=["B", "L"])
@pytest.mark.parametrize("method", METHODS)
def test_preset__resolves_to_the_papers_settings(method: str, large: bool) -> None:
    student = "eva02-l14-336" if large else "eva02-b16"
    config = TrainConfig(store="store", run="run", method=method, student=student)
    lr, batch, beta, alpha, canvas, regions, mode = SETTINGS[method]
    assert (config.lr, config.batch_size, config.betas) == (lr, batch, (0.9, beta))
    assert (config.weight_decay, config.schedule, config.epochs) == (0.1, "cosine", 6)
    assert (config.alpha, config.mode) == (alpha[large], mode)
    kept = (0.0, "none") if method == "logit-kd" else (0.3, "densevlm")
    assert (config.theta, config.decoupling, config.tau) == (*kept, 0.01)
    assert (config.spatial_tau, config.spatial_side) == (0.2, 7)
    assert config.method_preset.store == {"canvas": canvas[large], "regions": regions}
    assert config.method_preset.losses == LOSSES[method][large]
    steps_of_coco = 6 * (118287 // (batch * METHODS[method].gpus))
    assert warmup_steps(steps_of_coco) == 1000


def test_preset__a_flag_wins() -> None:
    config = TrainConfig(store="store", run="run", method="r-sc-clipself", lr=1e-3, alpha=1, batch_size=8)
    assert (config.lr, config.alpha, config.batch_size) == (1e-3, 1, 8)
    assert {"lr", "alpha", "batch_size"}.isdisjoint(config.from_preset)
    assert "betas" in config.from_preset


@pytest.mark.parametrize(("total", "warmup"), [(1001, 1000), (1000, 100), (300, 30), (5, 0)])
def test_warmup__is_shortened_where_the_training_is_no_longer(total: int, warmup: int) -> None:
    assert warmup_steps(total) == warmup
