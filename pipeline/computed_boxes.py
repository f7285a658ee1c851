"""Decides which boxes a build stores, and which readers compute."""

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.shards.region_plans import RegionPlan
from densecli.shards.regions import GridPlan
from densecli.shards.specs import RegionSpec
from densecli.shards.store import Store


def column_spec(plan: RegionPlan, *, computed: bool) -> RegionSpec:
    """The spec of a plan's column, with its boxes stored or computed."""
    return {**plan.spec, "stored": False} if computed else plan.spec


def computes_boxes(store: Store, plan: RegionPlan, *, store_boxes: bool = False) -> bool:
    """Whether readers of a store compute the boxes of a plan.

    They compute those of grids, except in a store of format 1 and in one that has stored them before.

    Args:
        store: The store, which may not exist yet.
        plan: The plan.
        store_boxes: Whether the boxes are to be stored in any case.

    Raises:
        DenseCLIError: They are to be stored, and the store has targets of computed ones.
    """
    if store.format == 1 or not isinstance(plan, GridPlan):
        return False
    if not store_boxes:
        return not _has(store, plan, computed=False)
    if _has(store, plan, computed=True):
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} computes "
            f"the boxes of {plan.name}: its targets belong to those.",
            hint="Leave out --store-boxes to continue it, or build another store (--store).",
        )
    return False


def _has(store: Store, plan: RegionPlan, *, computed: bool) -> bool:
    column = store.column("regions", plan.name, column_spec(plan, computed=computed))
    return fs.exists(fs.join(column.url, "column.json"))
