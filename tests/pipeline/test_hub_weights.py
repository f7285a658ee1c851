"""Builds with weights from the hub: the same store as from a file, and each node has its own copy."""

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from building import build_here
from hub_server import COMMIT, Hub
from huggingface_hub import constants

from densecli.models.weights import find_weights
from densecli.pipeline.build_request import prepare
from densecli.pipeline.config import BuildConfig
from densecli.pipeline.verify import verify
from densecli.pipeline.verify_config import VerifyConfig

ADDRESS = "hf-hub:org/student"


@pytest.fixture
def fetched(tiny: BuildConfig, hub_server: Hub) -> BuildConfig:
    file = Path(find_weights("scenes-s"))
    hub_server.repos["org/student"] = {"student.safetensors": file.read_bytes()}
    return replace(tiny, weights={"scenes-s": ADDRESS})


def test_build__from_the_hub_and_from_a_file_make_the_same_column(fetched, tiny) -> None:
    request, _ = build_here(fetched)
    here, _ = prepare(replace(tiny, weights={"scenes-s": find_weights("scenes-s")}))
    (_, _, column), (_, _, other) = request.columns(), here.columns()
    assert column.key == other.key and column.info["weights"] == f"{ADDRESS}/student.safetensors@{COMMIT}"


def test_build__a_dry_run_names_the_column_and_downloads_nothing(fetched, hub_server: Hub) -> None:
    planned, _ = prepare(replace(fetched, dry_run=True))
    assert hub_server.downloads() == []
    assert planned.columns()[-1].key == prepare(fetched)[0].columns()[-1].key
    assert len(hub_server.downloads()) == 1


def test_build__a_node_that_has_no_copy_fetches_that_of_the_same_commit(
    fetched, hub_server: Hub, tmp_path: Path, monkeypatch
) -> None:
    request, _ = prepare(fetched)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "of another node"))
    request.make_columns()
    pickle.loads(pickle.dumps(request)).builder()
    assert len(hub_server.downloads()) == 2
    assert list((tmp_path / "of another node").glob(f"*/snapshots/{COMMIT}/student.safetensors"))


def test_build__goes_on_without_a_network(fetched, hub_server: Hub, monkeypatch) -> None:
    prepare(fetched)
    hub_server.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    build_here(fetched)
    assert hub_server.asked == []


def test_verify__finds_the_weights_where_the_build_had_them(fetched, tmp_path: Path) -> None:
    build_here(fetched)
    shutil.rmtree(tmp_path / "hub")
    assert verify(VerifyConfig(store=fetched.store_url, samples=2, device="cpu"))["verified"]


def test_build__weights_may_be_given_under_any_name_of_the_model(tiny) -> None:
    by_alias = prepare(replace(tiny, teachers=("vitb16",), weights={"eva02-b16": "random:0"}))[0]
    by_name = prepare(replace(tiny, teachers=("eva02-b16",), weights={"vitb16": "random:0"}))[0]
    assert [teacher.name for teacher, _ in by_alias.targets] == ["vitb16"]
    assert by_alias.targets[0][1]["weights"] == by_name.targets[0][1]["weights"] == "random:0"
