"""The launcher: starts workers as Ray actors, ends them, and says where they are."""

import math
from collections.abc import Collection
from contextlib import suppress
from typing import Any

import ray
import torch
from ray._private import state as ray_state
from ray.actor import ActorHandle
from ray.util.scheduling_strategies import NodeLabelSchedulingStrategy, NotIn

from densecli.pipeline.cluster import check_head, gpus_of_worker, nodes, total_gpus
from densecli.pipeline.worker import UNITS_PER_WORKER, PackedWork, Work, WorkerActor


class Launcher:
    """Starts the workers of a pool.

    Attributes:
        cpus: CPUs of a worker.
        gpus: GPUs of a worker, or a fraction of one.
    """

    def __init__(self, work: Work, workers: int, gpus_per_worker: float | None = None) -> None:
        """Starts no worker yet.

        Args:
            work: The work.
            workers: Number of workers that are wanted.
            gpus_per_worker: GPUs of each worker, or a fraction of one. None shares all GPUs evenly. Work for
                the CPU gets none.
        """
        share = gpus_of_worker(workers, total_gpus()) if gpus_per_worker is None else gpus_per_worker
        self.cpus, self.gpus = 1, 0 if work.device == "cpu" else share
        self._actor: Any = ray.remote(WorkerActor)
        neighbours = math.ceil(workers / len(nodes()))
        # Ray would give each actor one thread; here the workers of a node share the threads of one process.
        threads = max(1, torch.get_num_threads() // neighbours)
        self._settings = (ray.put(PackedWork.pack(work)), neighbours, threads)

    def start(self, left_out: Collection[str]) -> ActorHandle[Any]:
        """Asks Ray for a worker, anywhere but on these nodes. It starts once there is room.

        Raises DenseCLIError if the head node is gone; see `check_head`.
        """
        check_head()
        handle: ActorHandle[Any] = self._actor.options(
            num_cpus=self.cpus,
            num_gpus=self.gpus,
            # Two more calls than units, because `stop` and `pulse` must not wait.
            max_concurrency=UNITS_PER_WORKER + 2,
            scheduling_strategy=_away_from(left_out) if left_out else "SPREAD",
        ).remote(*self._settings)
        return handle

    def check(self) -> None:
        """See `check_head`."""
        check_head()

    def end(self, worker: ActorHandle[Any]) -> None:
        """Kills a worker, if it is alive. Raises DenseCLIError if the head node is gone; see `check_head`."""
        check_head()
        with suppress(Exception):  # Ray has no word for "if it is alive".
            ray.kill(worker)

    def node_of(self, worker: ActorHandle[Any]) -> tuple[str, str] | None:
        """Id and address of the node of a worker that died before it said where it is, if Ray knows.

        Raises DenseCLIError if the head node is gone; see `check_head`.
        """
        check_head()
        try:
            address = ray_state.actors(worker._actor_id.hex())["Address"]
            node, name = address["NodeID"], address["IPAddress"]
        except Exception:  # The failure itself is told anyway.
            return None
        # Ray's id of no node.
        return (node, name) if node.strip("f") else None

    def hosts(self) -> set[str]:
        """Ids of the nodes that have what a worker needs, free or not.

        Raises DenseCLIError if the head node is gone; see `check_head`.
        """
        check_head()
        return {
            node["NodeID"]
            for node in nodes()
            if node["Resources"].get("CPU", 0) >= self.cpus and node["Resources"].get("GPU", 0) >= self.gpus
        }


def _away_from(left_out: Collection[str]) -> NodeLabelSchedulingStrategy:
    # The label with a node's id has been renamed between releases of Ray.
    label = next(
        name for node in nodes() for name, value in node["Labels"].items() if value == node["NodeID"]
    )
    return NodeLabelSchedulingStrategy({label: NotIn(*left_out)})  # type: ignore[no-untyped-call]
