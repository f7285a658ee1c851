"""Every fault test says what it broke and survived; the test run ends with the count."""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from building import build_here

from densecli.pipeline.config import BuildConfig
from densecli.shards import key_index, manifest

INJECTED = pytest.StashKey[Counter[str]]()
SURVIVED = pytest.StashKey[Counter[str]]()


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """A forked child would wait for OpenMP's threads, which only its parent has."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def survived(request: pytest.FixtureRequest) -> Iterator[Callable[[str], None]]:
    """To be called with the fault's name once it was injected and everything was well again.

    A test that ends without calling it counts as a fault that was not survived.
    """
    stash = request.config.stash
    names: list[str] = []
    yield names.append
    stash.setdefault(INJECTED, Counter()).update(names or [request.node.name])
    stash.setdefault(SURVIVED, Counter()).update(names)


@pytest.fixture
def tiny(tmp_path: Path) -> BuildConfig:
    """Three shards of one scene and three columns, all of them stored."""
    return _tiny(tmp_path / "store")


def _tiny(store: Path) -> BuildConfig:
    return BuildConfig(
        dataset="scenes",
        split="val",
        limit=3,
        shard_size=1,
        store=str(store),
        teachers=("scenes-s",),
        weights={"scenes-s": "random:0"},
        device="cpu",
        store_boxes=True,
    )


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of `tiny`, built in peace."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    build_here(_tiny(store))
    return store


@pytest.fixture
def finished(tiny: BuildConfig, undisturbed: Path) -> Path:
    """The store of `tiny`, finished, for a test to damage."""
    assert tiny.store
    return Path(shutil.copytree(undisturbed, tiny.store))


@pytest.fixture
def contents() -> Callable[[Path], dict[str, object]]:
    """Every byte of a store, without temporaries, without what a receipt says of the run that wrote it, and
    without the manifests, which follow from the receipts."""

    def read(store: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in sorted(p for p in store.rglob("*") if p.is_file() and not p.name.startswith(".")):
            if path.name in (manifest.FILE, key_index.FILE):
                continue
            data = path.read_bytes()
            is_receipt = path.suffix == ".json" and path.stem.isdecimal()
            name = str(path.relative_to(store))
            found[name] = {**json.loads(data), "run": None} if is_receipt else data
        return found

    return read


@pytest.fixture
def shards() -> Callable[[Path], dict[str, tuple[int, int]]]:
    """The tars of the finished shards of a store, with what making one again would change."""

    def stat(store: Path) -> dict[str, tuple[int, int]]:
        tars = [path for path in sorted(store.rglob("*.tar")) if path.with_suffix(".json").exists()]
        return {str(p.relative_to(store)): (p.stat().st_ino, p.stat().st_mtime_ns) for p in tars}

    return stat


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    injected, survived = (config.stash.get(key, Counter()) for key in (INJECTED, SURVIVED))
    if not injected:
        return
    terminalreporter.section(f"faults: {injected.total()} injected, {survived.total()} survived")
    for name, count in sorted(injected.items()):
        terminalreporter.line(f"{survived[name]} of {count}  {name}")
