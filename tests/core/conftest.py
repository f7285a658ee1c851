"""A folder on each kind of file system."""

import pytest


@pytest.fixture(params=["local", "memory", "s3"])
def root(request, tmp_path):
    if request.param == "s3":
        return request.getfixturevalue("s3")
    return str(tmp_path) if request.param == "local" else f"memory://{tmp_path.name}"
