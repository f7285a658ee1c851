"""Labels for other categories, prompts or boxes, out of a column of features: without the teacher."""

from contextlib import nullcontext, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from densecli.core import fs
from densecli.core.errors import DenseCLIError
from densecli.core.prefetch import Stopped
from densecli.core.progress import Progress
from densecli.core.signals import Stop
from densecli.models.categories import load_categories
from densecli.models.checkpoints import find_weights, load_model, weights_given
from densecli.models.registry import resolve
from densecli.models.text import category_embeddings, load_text_embeddings
from densecli.pipeline.cluster import connected
from densecli.pipeline.config import RelabelConfig
from densecli.pipeline.relabeller import Relabeller
from densecli.pipeline.shard_builder import Unit
from densecli.pipeline.summary import Reports, Summary, carried_out, tallied
from densecli.pipeline.teachers import default_categories
from densecli.pipeline.teachers.base import weights_id
from densecli.pipeline.teachers.features import PREFIX
from densecli.pipeline.teachers.labels import Retrieval
from densecli.pipeline.worker_pool import WorkerPool, run_units
from densecli.shards.codecs import Features
from densecli.shards.regions import RegionPlan, region_plan
from densecli.shards.store import Column, Store

MAX_ATTEMPTS = 3


def relabel(config: RelabelConfig) -> dict[str, Any]:
    """Add the column of labels that `config` describes, or what is missing of it.

    Returns a summary as `build_shards` does. Raises DenseCLIError; the same call afterwards goes on where it
    stopped. SIGINT and SIGTERM end it in good order, as Interrupted.
    """
    job = prepare(config)
    return carried_out(
        job.store,
        [job.regions, job.labels],
        dry_run=config.dry_run,
        make=job.make,
        build=lambda todo: _build(job, todo, config.workers),
    )


def _build(job: "RelabelJob", todo: list[str], workers: int) -> Summary:
    relabeller = job.relabeller()
    units = (Unit(shard=shard, items=()) for shard in todo)

    def here(stop: Stop, _progress: Progress) -> Reports:
        with suppress(Stopped):
            for unit in units:
                yield unit, relabeller.build(unit, stop)

    def crew(stop: Stop, progress: Progress) -> Reports:
        return run_units(units, WorkerPool(relabeller, workers, say=progress.say), MAX_ATTEMPTS, stop.is_set)

    # Ray takes seconds to start, as long as hundreds of photos.
    alone = workers == 1
    with nullcontext() if alone else connected(None, workers):
        return tallied(job.store, todo, here if alone else crew, verb="the relabelling")


@dataclass(frozen=True, kw_only=True)
class RelabelJob:
    """What is read and written; neither column need be there. weights: for the text tower, where one is
    needed."""

    store: Store
    features: Column
    plan: RegionPlan | None
    regions: Column
    labels: Column
    retrieval: Retrieval
    weights: str | None

    def relabeller(self) -> Relabeller:
        """Gets the text embeddings, then makes the columns: what fails leaves nothing behind."""
        map_codec = self.features.codec
        assert isinstance(map_codec, Features)
        text = self.text()
        self.make()
        return Relabeller(
            images=self.store.images,
            plan=self.plan,
            regions=self.regions,
            features=self.features,
            labels=self.labels,
            map_codec=map_codec,
            codec=self.retrieval.codec(),
            text=text,
            tau=self.retrieval.tau,
        )

    def make(self) -> None:
        """Makes the columns where they are not there yet; no shard of them."""
        for column in (self.regions, self.labels):
            self.store.make(column)

    def text(self) -> np.ndarray:
        """(D, C) float32, unit norm: from the file, else from the text tower."""
        names = load_categories(self.retrieval.categories).names
        arch = resolve(self.features.spec["architecture"])
        if file := self.retrieval.text_embeddings:
            return load_text_embeddings(file, len(names), arch.clip_config()["embed_dim"]).numpy()
        model, _ = load_model(arch.name, self.weights)
        return category_embeddings(model, names, templates=self.retrieval.prompts(arch)).numpy()


def prepare(config: RelabelConfig) -> RelabelJob:
    """Writes nothing; raises DenseCLIError for whatever cannot be."""
    store = Store.open(fs.absolute(config.store))
    features = _features(store, config.teacher)
    regions, plan = _regions(store, config.regions, config.proposals)
    model = features.name.removeprefix(PREFIX)
    weights = weights_given(model, list(config.weights.items()))
    if not config.text_embeddings:
        weights = weights or str(find_weights(model))
        if weights_id(weights) != features.spec["weights"]:
            raise DenseCLIError(
                f"{weights} are not the weights that the column {features.full_name} was made with.",
                hint=f"Name those, --weights {model}=PATH, or give --text-embeddings of the same model.",
            )
    retrieval = Retrieval(
        categories=config.categories or default_categories(store.dataset["name"]),
        text_embeddings=config.text_embeddings,
        templates=config.templates,
        tau=config.tau,
    )
    spec = {
        "producer": "relabel/1",
        "features": features.key,
        "regions": regions.key,
        "target": retrieval.target(resolve(model)),
        "codec": retrieval.codec().spec,
    }
    info = {
        "features": features.full_name,
        "random_weights": features.random_weights,
        "categories": load_categories(retrieval.categories).name,
    }
    return RelabelJob(
        store=store,
        features=features,
        plan=plan,
        regions=regions,
        labels=store.column("targets", f"relabel-{model}", spec, info),
        retrieval=retrieval,
        weights=weights,
    )


def _features(store: Store, name: str | None) -> Column:
    """The finished column of features called `name` or `name`-`id`, or the only one."""
    columns = [c for c in store.columns("targets") if c.target_kind == "features"]
    found = [c for c in columns if name in (None, c.name, c.full_name)]
    if len(found) != 1:
        listed = ", ".join(c.full_name for c in columns)
        raise DenseCLIError(
            f"The store at {store.root} has {len(found) or 'no'} columns of features"
            + (f" named {name}." if name else "."),
            hint=f"Choose one with --teacher: {listed}."
            if listed
            else f"Make one with densecli build-shards --teacher {name or f'{PREFIX}MODEL'}.",
        )
    if missing := found[0].missing():
        raise DenseCLIError(
            f"The column {found[0].url} is not finished: {len(missing)} of {len(store.shard_names)} shards "
            "are missing.",
            hint="Run its build-shards command again: it continues where it stopped.",
        )
    return found[0]


def _regions(store: Store, name: str | None, proposals: str | None) -> tuple[Column, RegionPlan | None]:
    """The column of the boxes, and where it is not there whole the plan that makes it."""
    there = store.columns("regions")
    if name is None and len(there) != 1:
        raise DenseCLIError(
            f"The store at {store.root} has {len(there) or 'no'} region plans.",
            hint=f"Choose one with --regions: {', '.join(c.name for c in there) or 'grid-paper'}.",
        )
    name = name or there[0].name
    whole = [column for column in there if column.name == name and column.complete]
    if len(whole) == 1 and not proposals:
        return whole[0], None
    plan = region_plan(name, fs.absolute(proposals) if proposals else "")
    return store.column("regions", plan.name, plan.spec), plan
