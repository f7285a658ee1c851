"""Training on the first of the stored views: as on a column that holds no more."""

from pathlib import Path

import pytest
from training import rows, run_settings

from densecli.train.distillation import TrainConfig, train


@pytest.mark.parametrize("losses", [{"region_cosine": 1.0}, {"region_cosine": 1.0, "region_kl": 1.0}])
def test_train__on_two_of_four_views_as_on_a_column_of_two(full_store, tmp_path: Path, losses: dict) -> None:
    def logged(name: str, **settings) -> list:
        run, store = tmp_path / name, full_store.store.root
        train(TrainConfig(**run_settings(store, run, losses=losses, max_steps=6, **settings)))
        return rows(run)

    half = logged("half", teachers=("tiny", "crops-half"))
    assert logged("first", views=2) == half
    assert logged("all") != half
