"""Relabels: makes labels for other categories, prompts or boxes from stored embeddings, without a teacher."""

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.models.categories import load_categories
from densecli.models.checkpoints import load_model
from densecli.models.registry import resolve
from densecli.models.teacher_names import names_of
from densecli.models.text import category_embeddings, load_text_embeddings
from densecli.models.weights import located, weights_given
from densecli.pipeline.computed_boxes import column_spec, computes_boxes
from densecli.pipeline.fill_columns import fill_columns
from densecli.pipeline.part_sums import in_each_part
from densecli.pipeline.proposals import check_stored
from densecli.pipeline.relabel_config import RelabelConfig
from densecli.pipeline.relabeller import Relabeller
from densecli.pipeline.summary import Summary
from densecli.pipeline.teachers.base import weights_id
from densecli.pipeline.teachers.labels import Retrieval, absolute_file
from densecli.shards.datasets import defaults_for
from densecli.shards.kinds import KINDS
from densecli.shards.mask_plan import MaskPlan
from densecli.shards.region_plans import region_plan
from densecli.shards.regions import GridPlan, ProposalPlan
from densecli.shards.specs import ColumnInfo, RelabelSpec, TargetSpec
from densecli.shards.store import Column, Store


def relabel(config: RelabelConfig) -> Summary:
    """Adds the column of labels that `config` describes, or the shards that it lacks.

    Args:
        config: The features or crops, and the categories, prompts and boxes of the labels.

    Returns:
        A summary like that of `build_shards`; see `in_each_part` for a store of parts.

    Raises:
        DenseCLIError: The labels cannot be made. The same call continues where it stopped.
        Interrupted: SIGINT or SIGTERM stopped it in good order.
    """
    return in_each_part(config.store, lambda store: _relabel(replace(config, store=store)))


def _relabel(config: RelabelConfig) -> Summary:
    request = prepare(config)
    return fill_columns(
        request.store,
        [request.regions, request.labels],
        request.relabeller,
        workers=config.workers,
        dry_run=config.dry_run,
        run="the relabelling",
    )


@dataclass(frozen=True, kw_only=True)
class RelabelRequest:
    """The columns to read and to write, which may not exist yet.

    Attributes:
        store: The store.
        features: The finished column of features or crops.
        plan: The region plan, if the column of boxes may not be finished.
        regions: The column of boxes.
        labels: The column to make.
        retrieval: How labels are retrieved for the boxes.
        weights: Weights of the text tower, if one is needed.
    """

    store: Store
    features: Column
    plan: GridPlan | ProposalPlan | None
    regions: Column
    labels: Column
    retrieval: Retrieval
    weights: str | None

    def relabeller(self) -> Relabeller:
        """Makes the text embeddings, and what builds the labels."""
        return Relabeller(
            images=self.store.images,
            plan=self.plan,
            regions=self.regions,
            features=self.features,
            labels=self.labels,
            codec=self.retrieval.codec(),
            text=self.text(),
            tau=self.retrieval.tau,
        )

    def text(self) -> np.ndarray:
        """Returns the text embeddings from the file, else from the text tower: (D, C) float32, unit norm."""
        arch = resolve(self.features.spec["architecture"])
        names = tuple(load_categories(self.retrieval.categories).names)
        if file := self.retrieval.text_embeddings:
            return load_text_embeddings(file, len(names), arch.clip_config()["embed_dim"]).numpy()
        return _embeddings(arch.name, self.weights, names, tuple(self.retrieval.prompts(arch)))


@lru_cache(maxsize=1)
def _embeddings(
    model: str, weights: str | None, names: tuple[str, ...], templates: tuple[str, ...]
) -> np.ndarray:
    """(D, C) float32. Kept, so that the text tower is not loaded for each part of a store of parts."""
    clip, _ = load_model(model, weights)
    return category_embeddings(clip, names, templates=templates).numpy()


def prepare(config: RelabelConfig) -> RelabelRequest:
    """Resolves the settings of a relabelling; writes nothing.

    Raises:
        DenseCLIError: A setting is wrong, or something is missing.
    """
    store = Store.open(fs.absolute(config.store))
    features = _features(store, config.teacher)
    kind = KINDS[features.target_kind]
    if kind.about_boxes:
        regions, plan = _own_regions(store, features, config), None
    else:
        regions, plan = _regions(store, config.regions, config.proposals)
    model = features.name.removeprefix(kind.prefix)
    weights = weights_given(model, list(config.weights.items()))
    if not config.text_embeddings:
        weights = located(model, weights)
        if weights_id(weights) != features.spec["weights"]:
            raise DenseCLIError(
                f"The column {features.full_name} was not made with the weights {weights}.",
                hint=f"Give those as --weights {model}=PATH, or the same model's --text-embeddings.",
            )
    retrieval = Retrieval(
        categories=config.categories or defaults_for(store.dataset["name"]).categories,
        text_embeddings=config.text_embeddings,
        templates=absolute_file(config.templates),
        tau=config.tau,
    )
    of_features = features.spec["target"]
    # Crops are of some views of a photo, and so are their labels.
    target: TargetSpec = {**retrieval.target_spec(resolve(model)), "name": kind.relabelled_as}
    if "views" in of_features:
        target |= {"views": of_features["views"], "seed": of_features["seed"]}
    spec: RelabelSpec = {
        "producer": "relabel/1",
        "features": features.key,
        "regions": regions.key,
        "target": target,
        "codec": retrieval.codec().spec,
    }
    info: ColumnInfo = {
        "features": features.full_name,
        "random_weights": features.random_weights,
        "categories": load_categories(retrieval.categories).name,
    }
    return RelabelRequest(
        store=store,
        features=features,
        plan=plan,
        regions=regions,
        labels=store.column("targets", f"{kind.relabelled_prefix}{model}", spec, info),
        retrieval=retrieval,
        weights=weights,
    )


def _features(store: Store, name: str | None) -> Column:
    """The finished column of features or crops with this name or full name, or the only one of features."""
    columns = [c for c in store.columns("targets") if _relabelled(c)]
    if name:
        found = [c for c in columns if name in names_of(c)]
    else:
        found = [c for c in columns if c.target_kind == "features"]
    if len(found) != 1:
        listed = ", ".join(c.full_name for c in columns)
        teacher = name or f"{KINDS['features'].prefix}MODEL"
        teacher = teacher if _can_be_relabelled(teacher) else f"{KINDS['features'].prefix}{teacher}"
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} has {len(found) or 'no'} columns of features"
            + (f" or crops named {name}." if name else "."),
            hint=f"Choose one with --teacher: {listed}."
            if listed
            else f"Make one with densecli build-shards --teacher {teacher}.",
        )
    if missing := found[0].missing():
        raise DenseCLIError(
            f"The column {found[0].url} is not finished: {len(missing)} of {len(store.shard_names)} shards "
            "are missing.",
            hint="Run its build-shards command again: it continues where it stopped.",
        )
    return found[0]


def _relabelled(column: Column) -> bool:
    """Whether labels can be made of a column; it may be of a plug-in's kind."""
    return column.target_kind in KINDS and bool(KINDS[column.target_kind].relabelled_as)


def _can_be_relabelled(teacher: str) -> bool:
    return any(kind.relabelled_as and teacher.startswith(kind.prefix) for _, kind in KINDS.items())


def _own_regions(store: Store, column: Column, config: RelabelConfig) -> Column:
    """The boxes that a column of crops is about. Raises DenseCLIError if others are asked for."""
    regions = store.regions_of(column)
    if config.proposals or config.regions not in (None, regions.name):
        raise DenseCLIError(
            f"{column.full_name} is of the boxes of {regions.name} alone: other boxes have other crops.",
            hint="Leave --regions and --proposals out, or relabel a column of features.",
        )
    return regions


def _regions(
    store: Store, name: str | None, proposals: str | None
) -> tuple[Column, GridPlan | ProposalPlan | None]:
    """The column of boxes, and the plan that makes it; None instead of the plan if it is finished."""
    there = store.columns("regions")
    if name is None and len(there) != 1:
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} has {len(there) or 'no'} region plans.",
            hint=f"Choose one with --regions: {', '.join(c.name for c in there) or 'grid-paper'}.",
        )
    name = name or there[0].name
    whole = [column for column in there if column.name == name and column.complete]
    if len(whole) == 1 and not proposals:
        return whole[0], None
    plan = region_plan(name, fs.absolute(proposals) if proposals else "")
    if isinstance(plan, MaskPlan):
        raise DenseCLIError(
            f"The store at {fs.shown(store.root)} has no finished "
            f"column of the regions {name}, and masks are not made "
            "of stored photos but of annotations.",
            hint=f"Make it with densecli build-shards --regions {name}, without a teacher.",
        )
    computed = computes_boxes(store, plan)
    column = store.column("regions", plan.name, column_spec(plan, computed=computed))
    check_stored(plan, store)
    return column, plan
