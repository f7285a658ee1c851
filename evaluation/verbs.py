"""The verbs that measure."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import click

from shards.flags import flags, given, write_json


@click.command()
@click.option("--mode", metavar="NAME", help="How the last block is read out.")
@click.option("--classes", is_flag=True, help="Print rows per size and per class as well.")
@click.option("--crops", is_flag=True, help="Also of each segment's own crop, by [CLS]: an upper bound.")
@click.option("--report", metavar="DIR", help="Write DIR/index.html; with --run, before and after.")
@click.option("--coupling", is_flag=True, help="Only how alike the tokens of different segments are.")
@click.option("--refiner", metavar="FILE", help="With --coupling: also of the model's Refiner.")
@flags("data", "split", "limit", "run", "student", "weights", "categories", "text-embeddings", "canvas")
@flags("batch-size", "device", "json")
def evaluate(
    data: str | None,
    split: str | None,
    limit: int | None,
    run: str | None,
    student: str | None,
    weights: Sequence[tuple[str, str]],
    categories: str | None,
    text_embeddings: str | None,
    device: str,
    classes: bool,
    crops: bool,
    report: str | None,
    coupling: bool,
    refiner: str | None,
    json_file: str | None,
    **settings: Any,
) -> None:
    """Region classification on a panoptic dataset: Boxes, Masks-T, Masks-S, stuff called a thing.

    \b
    densecli evaluate --data data/coco --split val2017 --run runs/densevlm-eva02-b16-coco-512
    """
    from evaluation.classify import ClassifyConfig
    from evaluation.coupling import evaluate_coupling
    from evaluation.region import Subject, evaluate_regions
    from evaluation.region_page import write_region_page
    from evaluation.report import class_table, coupling_table, regions_table, size_table
    from models.checkpoints import weights_given
    from models.ranks import joined_ranks

    path = weights_given(student, weights) if student else None
    subject = Subject.of_run(run) if run else Subject(model=student or "eva02-b16", weights=path)
    where: dict[str, Any] = {
        "data": data or "data/coco",
        "split": split or "val2017",
        "limit": limit,
        "categories": categories or "133",
    }
    config = ClassifyConfig(**{**(subject.settings or {}), **given(settings)})
    if coupling:
        ratios = evaluate_coupling(subject, refiner, **where, device=device, config=config)
        write_json(json_file, ratios)
        click.echo(coupling_table(ratios).text())
        return
    subjects = {subject.title: subject}
    if run and report:
        earlier = Subject.before_run(run, weights_given(subject.model, weights))
        subjects = {"before": earlier, "after": subject}
    with joined_ranks(device) as ranks:
        measure = partial(evaluate_regions, text_embeddings_file=text_embeddings, **where, ranks=ranks)
        results = {name: measure(subject=each, config=config) for name, each in subjects.items()}
        asked = subjects if crops else {}
        of_crops = {
            name: measure(subject=each, config=replace(config, crops=True)) for name, each in asked.items()
        }
        if not ranks.first:
            return
    titled = {f"{name}, crops": result for name, result in of_crops.items()}
    write_json(json_file, {name: result.to_dict() for name, result in {**results, **titled}.items()})
    show = partial(click.echo, err=json_file == "-")
    show(regions_table({**results, **titled}).text())
    if classes:
        show(size_table(results).text())
        show(class_table(list(results.values())[-1], results.get("before")).text())
    if report:
        page = write_region_page(
            report, subjects, results, crops=of_crops, **where, config=config, device=device
        )
        show(f"Report: {page}")
