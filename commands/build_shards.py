"""The command `build-shards`: runs teachers once over photos."""

from collections.abc import Mapping
from typing import Annotated, Any, NotRequired

from densecli.commands.command import command
from densecli.commands.method_needs import METHOD, STUDENT, build_for
from densecli.commands.options import Options
from densecli.commands.results import Build, Passed, Result
from densecli.core.passed_over import examples, in_words
from densecli.core.tables import counted
from densecli.pipeline.config import BuildConfig
from densecli.shards.specs import FULL_PRECISION


class Listed(Build):
    """A build from photos."""

    passed_over: Passed
    proposals: Annotated[dict[str, int], "How the file of boxes fits the photos; empty without one."]
    listed: Annotated[str | None, "Where the listing was kept from; null if it was made now."]
    unlisted: Annotated[NotRequired[int], "Parts that are not listed yet."]


@command(BuildConfig, METHOD, STUDENT, results=(Result(fields=Listed),))
def build_shards(options: Options) -> None:
    """Run teachers once over a data set and write their outputs into a store.

    Finished shards are kept, so the same command continues a build that was stopped.

    \b
    densecli build-shards --teacher vitl14 --dataset coco --split train2017
    densecli build-shards --method declip --student eva02-b16 --dataset coco
    """
    from densecli.pipeline.build_parts import build_parts, in_parts
    from densecli.pipeline.build_shards import build_shards as build

    config = build_for(options)
    summary = build_parts(config) if in_parts(config) else build(config)
    options.say(summary_text(summary), summary)


def _shards(column: Mapping[str, Any]) -> str:
    return f"{counted(column['shards'], 'shard')}{_precision(column)}"


def _precision(column: Mapping[str, Any]) -> str:
    """The precision of a column's teacher, unless it is the full one."""
    precision = column.get("precision", FULL_PRECISION)
    return "" if precision == FULL_PRECISION else f", teacher in {precision}"


def summary_text(summary: Mapping[str, Any]) -> str:
    """The columns of a build or a relabelling and how many photos they have."""
    lines = [
        f"{column['kind']:8} {column['name']}{'-' if column['id'] else ''}{column['id']}  "
        f"{'computed' if column['computed'] else _shards(column)}"
        for column in summary["columns"]
    ]
    counts = f", {summary['samples']} photos" if "samples" in summary else ""
    first = summary.get("skipped_first", {})
    skipped = ", ".join(
        f"{n} {reason}{examples(n, first.get(reason, ()))}"
        for reason, n in summary.get("skipped", {}).items()
    )
    skipping = f"; skipped {skipped}" if skipped else ""
    parts = f" in {summary['parts']} parts" if "parts" in summary else ""
    unlisted = f", {summary['unlisted']} of them not listed yet" if summary.get("unlisted") else ""
    lines.append(f"{summary['store']}: {summary['status']}{counts}{parts}{unlisted}{skipping}")
    if skipped:
        from densecli.pipeline.sources.address_loader import REFUSALS

        if remedies := [REFUSALS[reason] for reason in summary["skipped"] if reason in REFUSALS]:
            lines += [*remedies, "This store keeps what it has: build another one (--store) to read them."]
    if proposals := summary.get("proposals"):
        lines.append(
            f"Proposals: {proposals['matched']} of {proposals['photos']} photos have boxes; "
            f"{proposals['unmatched']} names in the file are of no listed photo; "
            f"of {proposals['boxes']} boxes {proposals['left_out']} are left out by their area, "
            f"{proposals['duplicates']} are there twice"
        )
    if masks := summary.get("masks"):
        from densecli.pipeline.mask_regions import told

        lines.append(told(masks))
    if passed := in_words(summary.get("passed_over", {})):
        lines.append(f"Passed over in the listing: {passed}")
    if listed := summary.get("listed"):
        from densecli.pipeline.sources.index import listed_before

        lines.append(listed_before(listed))
    return "\n".join(lines)
