"""The card of a shared store: what it is, of which data and weights, how exact, how to use and cite it."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import metadata
from pathlib import Path
from typing import Any

import densecli
from densecli.core.errors import DenseCLIError
from densecli.core.tables import size
from densecli.models.vfms import architecture_of
from densecli.shards.column import Column
from densecli.shards.datasets import defaults_for
from densecli.shards.store import Store

PAPERS: Mapping[str, str] = {
    "labels": "DenseVLM: A Retrieval and Decoupled Alignment Framework for Open-Vocabulary Dense Prediction",
    "crops": "CLIPSelf: Vision Transformer Distills Itself for Open-Vocabulary Dense Prediction",
    "gram": "DeCLIP: Decoupled Learning for Open-Vocabulary Dense Perception",
    "self": "R-SC-CLIPSelf: Refining CLIP's Spatial Awareness: A Visual-Centric Perspective",
    "refined": "R-SC-CLIPSelf: Refining CLIP's Spatial Awareness: A Visual-Centric Perspective",
}
"""The paper to cite, by kind of target."""
MAPS = frozenset({"features", "gram", "self", "refined", "refined-map", "aggregated"})
"""Kinds of target that hold tokens of a photo's places."""


def store_card(
    store: Store,
    columns: Sequence[Column],
    described: Sequence[Mapping[str, Any]],
    *,
    samples: int,
    licence: str | None,
    all_columns: Sequence[Column] = (),
) -> str:
    """The card as Markdown, with the front matter that the Hugging Face Hub reads.

    Args:
        store: The shared store.
        columns: Its columns.
        described: What `densecli.shards.info.describe` says of each.
        samples: Number of photos that the targets are about.
        licence: Licence of the columns; None if none was given.
        all_columns: Those of the store that they are copied from, in which the columns are that a mix or
            relabelled labels are made of.
    """
    dataset = store.dataset
    photos = " ".join(str(dataset[name]) for name in ("name", "split") if dataset.get(name))
    targets = [column for column in columns if column.kind == "targets"]
    papers = dict.fromkeys(PAPERS[c.target_kind] for c in targets if c.target_kind in PAPERS)
    total = sum(column["bytes"] for column in described)
    data = "" if defaults_for(dataset["name"]).generated else "--data YOUR/PHOTOS "
    lines = [
        "---",
        *([f"license: {licence}"] if licence else []),
        "tags: [densecli, vision-language, knowledge-distillation]",
        f"pretty_name: Teachers' outputs on {photos}",
        "---",
        "",
        f"# Teachers' outputs on {photos}",
        "",
        f"What frozen teachers said about {samples:,} photos of {photos}, on a canvas of {store.canvas} px, "
        f"as WebDataset shards ({size(total)}). The photos are not here: each target carries the sha256 of "
        "the photo that its teacher saw, so that whoever has the same photos can join them and train "
        "without running a teacher.",
        "",
        "## Use",
        "",
        "```",
        f"densecli build-shards --dataset {dataset['name']} {data}--canvas {store.canvas} "
        "--store stores/mine",
        "densecli adopt THIS/FOLDER --store stores/mine",
        "densecli train --store stores/mine",
        "```",
        "",
        "The first command stores your photos and runs no teacher. The second checks every photo's digest "
        "and adds these columns. Photos that are not the same are refused.",
        "",
        "## Columns",
        "",
        "| column | what | network | weights | licence of the weights | precision | a photo |",
        "|---|---|---|---|---|---|---|",
        *(
            _row(column, networks_of(column, all_columns), facts, samples)
            for column, facts in zip(columns, described, strict=True)
        ),
        "",
        *_warning(targets),
        "## Error of what is stored",
        "",
        "Measured shard by shard when the columns were built, against the teacher's own output. Of a mix, "
        "`agreement` is the share of regions for which its P-VLMs name the same category.",
        "",
        *(
            _errors(column, facts)
            for column, facts in zip(columns, described, strict=True)
            if facts["error"] and column.kind == "targets"
        ),
        "",
        "## Data",
        "",
        f"- Data set: {photos}, digest `{dataset.get('digest', 'not stated')}`.",
        "- Keys are names of photos. Nothing else of the photos is here, except what the targets tell of "
        "them." + (_inversion(targets)),
        f"- Licence of these columns: {licence or 'not stated yet'}. The licences of the photos and of the "
        "weights apply as well.",
        "",
        "## Cite",
        "",
        "densecli, the data set, the networks above" + (", and:" if papers else "."),
        "",
        *(f"- {paper}" for paper in papers),
    ]
    return "\n".join(lines).rstrip() + "\n"


def networks_of(column: Column, known: Sequence[Column]) -> list[Column | None]:
    """The columns whose networks made a column, each once: itself, or those that it is made of.

    Args:
        column: A column.
        known: The columns of its store.

    Returns:
        The columns; None for one that the store has no more. Empty for boxes.
    """
    if column.spec.get("architecture"):
        return [column]
    spec = column.spec
    keys = [*spec.get("mixed", {}), *([spec["features"]] if "features" in spec else [])]
    by_key = {each.key: each for each in known}
    found: dict[str, Column | None] = {}
    for key in keys:
        source = by_key.get(key)
        made = networks_of(source, known) if source else [None]
        found |= {each.key if each else key: each for each in made}
    return list(found.values())


def _row(column: Column, made: Sequence[Column | None], facts: Mapping[str, Any], samples: int) -> str:
    what = column.target_kind or "boxes" + (", computed" if column.computed else "")
    if made_of := column.info.get("mixed") or column.info.get("features"):
        what += f", of {made_of}"
    networks = [source.spec["architecture"] if source else "" for source in made]
    weights = [f"`{source.spec.get('weights', '')[:16]}`" if source else "not known" for source in made]
    return "| {} | {} | {} | {} | {} | {} | {} |".format(
        column.full_name,
        what,
        _once(network or "not known" for network in networks),
        _once(weights),
        _once(_licence(network) for network in networks),
        _once(source.precision if source else "not known" for source in made),
        size(facts["bytes"] / (samples or 1)),
    )


def _once(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _licence(network: str) -> str:
    try:
        described = architecture_of(network)
    except DenseCLIError:
        # Of a plug-in that is not loaded here.
        return "not known"
    if described.published:
        return described.published.licence or "not known"
    ours = described.weights and Path(described.weights).is_relative_to(Path(densecli.__file__).parent)
    return metadata("densecli")["License-Expression"] if ours else "not known"


def _errors(column: Column, facts: Mapping[str, Any]) -> str:
    figures = ", ".join(f"{name} {value:.2g}" for name, value in sorted(facts["error"].items()))
    return f"- {column.full_name}: {figures}"


def _warning(targets: Sequence[Column]) -> list[str]:
    random = [column.full_name for column in targets if column.random_weights]
    if not random:
        return []
    return [f"**Made with random weights, so the numbers mean nothing: {', '.join(random)}.**", ""]


def _inversion(targets: Sequence[Column]) -> str:
    maps = [column.full_name for column in targets if column.target_kind in MAPS]
    if not maps:
        return ""
    return f" Maps of tokens ({', '.join(maps)}) tell most: a rough picture may be made from them."
