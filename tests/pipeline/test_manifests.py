"""Manifests around a build: withdrawn before anything changes, published when a column is finished."""

from dataclasses import replace
from pathlib import Path

import pytest
from without_ray import build_here

from densecli.core.errors import DenseCLIError
from densecli.pipeline import build_shards as builds
from densecli.pipeline.build_shards import build_shards
from densecli.shards.info import describe
from densecli.shards.lint import lint
from densecli.shards.manifest import manifest_url, publish, read_manifest
from densecli.shards.store import Store


@pytest.fixture
def built(tiny, without_ray):
    build_shards(tiny)
    return Store.open(tiny.store)
