"""The region plans by their names on the command line."""

from dataclasses import replace

from densecli.core.registry import unknown_name
from densecli.shards.mask_plan import MaskPlan
from densecli.shards.regions import PAIRS, GridPlan, ProposalPlan

RegionPlan = GridPlan | MaskPlan | ProposalPlan


def region_plan(name: str, proposals: str = "", masks: MaskPlan | None = None) -> RegionPlan:
    """Makes the region plan of a name on the command line: grid-NAME, masks, mask-boxes or proposals.

    Args:
        name: Name of the plan.
        proposals: See `ProposalPlan.file`.
        masks: The settings of masks, whatever their `pool`.

    Raises:
        DenseCLIError: There is no such plan.
    """
    plans: dict[str, RegionPlan] = {plan.name: plan for plan in map(GridPlan, PAIRS)}
    plans["proposals"] = ProposalPlan(proposals)
    settings = masks or MaskPlan()
    for plan in (replace(settings, pool="mask"), replace(settings, pool="box")):
        plans[plan.name] = plan
    if name not in plans:
        raise unknown_name("region plan", name, plans)
    return plans[name]
