"""Files of the hub, from a server on loopback that speaks its protocol."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import COMMIT, Hub
from huggingface_hub import constants
from hypothesis import given
from hypothesis import strategies as st

from densecli.core import hub
from densecli.core.errors import DenseCLIError, Unreachable
from densecli.core.hub_file import HubFile

DATA = os.urandom(3_000_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
ADDRESS = "hf-hub:org/clip/model.safetensors"
PINNED = f"{ADDRESS}@{COMMIT}"
NAMES = st.from_regex(r"[a-zA-Z0-9][\w-]{0,8}", fullmatch=True)


@pytest.fixture
def server(hub_server: Hub) -> Hub:
    hub_server.repos["org/clip"] = {"model.safetensors": DATA, "README.md": b"# A card"}
    hub_server.licences["org/clip"] = "cc-by-4.0"
    return hub_server


@given(NAMES, NAMES, st.lists(NAMES, max_size=3), st.sampled_from(["main", "v1.0", COMMIT, "refs/pr/3"]))
def test_address__is_read_as_it_is_written(org: str, repo: str, path: list[str], revision: str) -> None:
    at = HubFile(repo=f"{org}/{repo}", file="/".join(path), revision=revision)
    assert HubFile.parse(str(at)) == at


@pytest.mark.parametrize(
    "address",
    ["hf-hub:", "hf-hub:org", "hf-hub:org/clip/../../x", "hf-hub:org/clip@", "hf-hub:org/clip@../../x"],
)
def test_address__that_is_none_is_refused(address: str) -> None:
    with pytest.raises(DenseCLIError, match="no address of a file") as caught:
        HubFile.parse(address)
    assert "hf-hub:ORG/REPO" in caught.value.hint


def test_pin__names_the_commit_the_size_the_digest_and_the_licence(
    server: Hub, capsys: pytest.CaptureFixture[str]
) -> None:
    assert hub.pin("hf-hub:org/clip") == PINNED
    line = capsys.readouterr().err
    assert "3.0 MB" in line and SHA256[:16] in line and "licence cc-by-4.0" in line
    assert server.downloads() == []


def test_local_file__is_downloaded_once_and_then_asks_nothing(server: Hub) -> None:
    assert hub.local_file(hub.pin(ADDRESS)).read_bytes() == DATA
    server.asked.clear()
    hub.pin.cache_clear()
    assert hub.pin(ADDRESS) == PINNED
    assert hub.local_file(PINNED).read_bytes() == DATA
    assert hub.sha256_of(PINNED) == SHA256
    assert server.asked == []


def test_sha256__of_a_file_that_is_not_here_needs_no_download(server: Hub) -> None:
    assert hub.sha256_of(PINNED) == SHA256
    assert server.downloads() == []


def test_local_file__that_was_cut_off_goes_on_where_it_stopped(server: Hub) -> None:
    server.cut, server.cuts = 1_000_000, 1
    assert hub.local_file(PINNED).read_bytes() == DATA
    assert server.ranges[0] == "" and server.ranges[-1].startswith("bytes=")


def test_local_file__that_is_always_cut_off_says_so_and_leaves_nothing_that_looks_whole(server: Hub) -> None:
    server.cut, server.cuts = 0, 100
    with pytest.raises(Unreachable, match="cannot be downloaded") as caught:
        hub.local_file(PINNED)
    assert "same command" in caught.value.hint
    assert hub.cached(PINNED) is None


def test_local_file__of_another_digest_is_refused(server: Hub) -> None:
    server.wrong = True
    with pytest.raises(DenseCLIError, match="another digest than the hub says, twice"):
        hub.local_file(PINNED)
    assert len(server.downloads()) == 2


def test_local_file__that_was_damaged_in_the_cache_is_downloaded_again(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = hub.local_file(PINNED).resolve()
    blob.write_bytes(DATA[:-1] + b"?" if DATA[-1:] != b"?" else DATA[:-1] + b"!")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DenseCLIError, match="is damaged"):
        hub.local_file(PINNED)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert hub.local_file(PINNED).read_bytes() == DATA


def test_local_file__that_comes_slowly_is_counted(server: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    server.pause = 0.001
    hub.local_file(PINNED)
    assert "3/3 MB" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("address", "message", "hint"),
    [
        ("hf-hub:org/nothing", "has no repository org/nothing, or it is private", "HF_TOKEN"),
        ("hf-hub:org/gated", "org/gated is gated", "hf auth login"),
        ("hf-hub:org/clip@v9", "has no revision v9", "/org/clip"),
        ("hf-hub:org/clip/other.pt", "has no file other.pt", "model.safetensors"),
        ("hf-hub:org/many", "has 2 files of weights", "a.pt, b.pt"),
        ("hf-hub:org/none", "has no file of weights", "Its page"),
    ],
)
def test_pin__says_what_is_missing(server: Hub, address: str, message: str, hint: str) -> None:
    server.repos |= {"org/gated": {"a.pt": b"1"}, "org/many": {"a.pt": b"1", "b.pt": b"2"}, "org/none": {}}
    server.gated.add("org/gated")
    with pytest.raises(DenseCLIError, match=message) as caught:
        hub.pin(address)
    assert hint in caught.value.hint


def test_pin__takes_the_first_of_the_names_that_a_repository_has(server: Hub) -> None:
    server.repos["org/many"] = {"a.pt": b"1", "b.pt": b"2"}
    assert hub.pin("hf-hub:org/many", ("c.pt", "b.pt", "a.pt")) == f"hf-hub:org/many/b.pt@{COMMIT}"


def test_offline__takes_what_is_in_the_cache_and_refuses_the_rest(
    server: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.local_file(hub.pin(ADDRESS))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    server.asked.clear()
    for names in ((), ("other.bin",), ("model.safetensors",)):
        assert hub.local_file(hub.pin("hf-hub:org/clip", names)).read_bytes() == DATA
    with pytest.raises(DenseCLIError, match="nothing is downloaded offline") as caught:
        hub.pin("hf-hub:org/other/model.safetensors")
    assert "HF_HUB_OFFLINE" in caught.value.hint
    assert server.asked == []


def test_unreachable_hub__is_one_sentence(server: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(Unreachable, match="cannot be downloaded from http") as caught:
        hub.pin(ADDRESS)
    assert "HTTPS_PROXY" in caught.value.hint


def test_environment__is_that_of_the_hubs_client_and_several_processes_download_once(server: Hub) -> None:
    server.pause = 0.02
    code = f"from densecli.core import hub; print(hub.local_file({PINNED!r}))"
    running = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    paths = {process.communicate(timeout=120)[0].strip() for process in running}
    (path,) = paths
    assert path.startswith(os.environ["HF_HOME"]) and Path(path).read_bytes() == DATA
    assert len(server.downloads()) == 1
