import logging
import os
import socket
from contextlib import contextmanager
from pathlib import Path

import pytest
import ray
from processes import listening

from densecli.core.errors import DenseCLIError
from densecli.pipeline import cluster
from densecli.pipeline.cluster import connected, gpus_at, gpus_of_worker, total_gpus, workers_on

pytestmark = pytest.mark.ray


@pytest.mark.parametrize(
    ("workers", "gpus", "share"), [(1, 1, 1), (8, 8, 1), (2, 8, 1), (2, 1, 0.5), (5, 2, 0.3333), (3, 0, 0)]
)
def test_gpus_of_worker__a_whole_one_or_as_small_a_part_as_it_takes(workers, gpus, share):
    assert gpus_of_worker(workers, gpus) == share


@pytest.mark.parametrize("workers", range(1, 50))
def test_gpus_of_worker__all_workers_find_room(workers):
    gpus = 3
    on_each = -(-workers // gpus)
    assert on_each * round(gpus_of_worker(workers, gpus), 4) <= 1


@pytest.mark.parametrize(
    ("gpus", "share", "workers"),
    [
        *[(0, None, 1), (0, 0.5, 1), (1, None, 1), (8, None, 8), (7, None, 7), (8, 0.5, 16), (3, 0.3333, 9)],
        *[(8, 2, 4), (7, 2, 3), (1, 2, 1), (8, 0.3, 24), (2, 1, 2)],
    ],
)
def test_workers_on__use_all_gpus(gpus, share, workers):
    assert workers_on(gpus, share) == workers


def test_workers__odd_numbers_share_gpus_that_ray_knows(monkeypatch):
    """On GPUs that Ray is only told of: three workers on two of them, all running at once."""
    start = ray.init
    monkeypatch.setattr("ray.init", lambda **options: start(**options, num_gpus=2))
    with connected(None, 3):
        assert (total_gpus(), gpus_at(None, "cpu")) == (2, 0)

        class Sleeper:
            def gpus(self) -> list[int]:
                return ray.get_gpu_ids()

        share = gpus_of_worker(3, total_gpus())
        workers = [ray.remote(Sleeper).options(num_cpus=1, num_gpus=share).remote() for _ in range(3)]
        ids = [gpu for found in ray.get([worker.gpus.remote() for worker in workers]) for gpu in found]
    assert sorted(ids) in ([0, 0, 1], [0, 1, 1])


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_connected__nobody_listens(scheme):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
    with (
        pytest.raises(DenseCLIError, match=f"Cannot connect to the Ray cluster {address}: .*refused"),
        connected(address, 1),
    ):
        pass


def test_connected__a_ray_that_does_not_start_is_a_sentence(monkeypatch, caplog):
    def init(logging_level, **_):
        # As Ray does it.
        logging.getLogger("ray").setLevel(logging_level)
        logging.getLogger("ray._private.node").error("Its own words.")
        raise Exception("The node timed out.\nSome of it failed to start.")

    monkeypatch.setattr("ray.init", init)
    with (
        pytest.raises(DenseCLIError, match=r"^Ray could not start on this machine: The node timed out\.$"),
        connected(None, 1),
    ):
        pass
    assert "Its own words." not in caplog.text


def test_connected__a_ray_that_starts_the_second_time(monkeypatch):
    tries = []

    def init(**options):
        tries.append(options)
        if len(tries) == 1:
            raise Exception("The node timed out.")

    monkeypatch.setattr("ray.init", init)
    with connected(None, 3):
        assert len(tries) == 2 and tries[0] == tries[1]
        assert tries[0]["num_cpus"] == 3


@pytest.mark.parametrize("variable", ["RAY_TMPDIR", "TMPDIR"])
def test_connected__a_temporary_folder_with_a_long_path_is_named(monkeypatch, tmp_path, variable):
    folder = tmp_path / "with-a-name-that-leaves-no-room-for-the-names-of-sockets"
    folder.mkdir()
    monkeypatch.setenv(variable, str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    with (
        pytest.raises(DenseCLIError, match=f"temporary folder {folder} has too long a path") as caught,
        connected(None, 1),
    ):
        pass
    assert "RAY_TMPDIR" in caught.value.hint


def test_connected__a_local_ray_is_this_users_and_this_machines_alone(monkeypatch):
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    loopback = ("0100007F:", "0000000000000000FFFF00000100007F:", "00000000000000000000000001000000:")
    before = listening(os.getpid())
    with connected(None, 1):
        folder = Path(ray._private.worker._global_node.get_session_dir_path()).parents[1]
        assert ray.get(ray.remote(lambda pid: pid != os.getpid()).remote(os.getpid()))
        opened = listening(os.getpid()) - before
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.name.startswith("densecli-")
    assert len(opened) >= 4
    assert not [address for address in opened if not address.startswith(loopback)]
    assert not folder.exists()


def test_connected_once__keeps_one_connection_for_the_same_ray(monkeypatch):
    told = []

    @contextmanager
    def connect(address, workers):
        told.append(("start", address, workers))
        yield
        told.append(("end", address, workers))

    alive = [True]
    monkeypatch.setattr(cluster, "connected", connect)
    monkeypatch.setattr(cluster.ray, "is_initialized", lambda: alive[0])
    with cluster.connected_once() as once:
        for workers in (2, 2, 3):
            with once(None, workers):
                told.append("work")
        alive[0] = False
        with once(None, 3):
            told.append("work")
    assert told == [
        ("start", None, 2), "work", "work", ("end", None, 2),
        ("start", None, 3), "work", ("end", None, 3),
        ("start", None, 3), "work", ("end", None, 3),
    ]  # fmt: skip
