"""Ray clusters on this machine."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ray.cluster_utils import Cluster


@contextmanager
def ray_cluster(**head: Any) -> Iterator[Cluster]:
    """A cluster of one node, for tests to add nodes to and to take them away.

    Tries twice, because Ray gives its processes only 30 seconds to start.
    """
    options = {"include_dashboard": False, **head}
    try:
        cluster = Cluster(initialize_head=True, head_node_args=options)
    except Exception:
        cluster = Cluster(initialize_head=True, head_node_args=options)
    try:
        yield cluster
    finally:
        cluster.shutdown()
