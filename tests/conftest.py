"""Fixtures every test folder shares."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real photos and published embeddings, where it lies beside the checkout."""
    folder = Path(os.environ.get("DENSECLI_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set DENSECLI_SHARED_DATA)")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference figures: DENSECLI_GOLDEN, else tests/golden."""
    return Path(os.environ.get("DENSECLI_GOLDEN", Path(__file__).parent / "golden"))
