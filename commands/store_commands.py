"""The verbs that look after a store. They load no model."""

from contextlib import closing
from typing import Any

import click

from densecli.commands.flags import flags, newest_store, say
from densecli.core.progress import Progress
from densecli.core.tables import size, table
from densecli.shards import gc as collector
from densecli.shards import info as describer
from densecli.shards import lint as linter
from densecli.shards.store import Store


@click.command()
@flags("store", "json")
@click.pass_context
def lint(ctx: click.Context, store: str | None, json_file: str | None) -> None:
    """Read a whole store and check every receipt, digest, key and count. Changes nothing.

    Exits with 1 where something is wrong, and says what to rebuild.

    \b
    densecli lint --store stores/coco-512
    """
    opened = Store.open(store or newest_store())
    with closing(Progress(linter.count(opened), "shards")) as progress:
        findings = list(linter.lint(opened, progress.advance))
    lines = [f"{finding.trouble} {finding.remedy}" for finding in findings]
    lines.append(f"{opened.root}: {len(findings) or 'no'} finding{'' if len(findings) == 1 else 's'}")
    say("\n".join(lines), json_file, {"store": opened.root, "findings": [f._asdict() for f in findings]})
    if findings:
        ctx.exit(1)


@click.command()
@flags("store", "json")
def info(store: str | None, json_file: str | None) -> None:
    """What a store holds, its size, and how fast it was built: images/s, seconds by stage, skipped photos.

    \b
    densecli info --store stores/coco-512
    """
    opened = Store.open(store or newest_store())
    total = len(opened.shard_names) * (1 + len(opened.columns()))
    with closing(Progress(total, "receipts")) as progress:
        described = describer.describe(opened, progress.advance)
    say(describer.report(described), json_file, described)


@click.command()
@click.option("--runs", metavar="DIR", default="runs", show_default=True, help="Folder of the runs.")
@click.option("--keep", multiple=True, metavar="NAME", help="A column to keep, NAME or NAME-ID. May repeat.")
@click.option(
    "--min-age",
    type=click.FloatRange(0),
    default=1.0,
    show_default=True,
    metavar="HOURS",
    help="Leave alone what was written since.",
)
@click.option("--delete", is_flag=True, help="Delete it; else it is only listed.")
@flags("store", "json")
def gc(
    runs: str, keep: tuple[str, ...], min_age: float, delete: bool, store: str | None, json_file: str | None
) -> None:
    """List, or delete, the columns that no run names and what killed writers left.

    A column is named by the config.json of a run, or by --keep. Where none is named, no column is listed.

    \b
    densecli gc --store stores/coco-512 --keep vitl14
    densecli gc --store stores/coco-512 --keep vitl14 --delete
    """
    opened = Store.open(store or newest_store())
    found = collector.garbage(opened, runs=runs, keep=keep, min_age=min_age * 3600)
    if delete:
        collector.delete(found)
    total = size(sum(item.bytes for item in found))
    verdict = f"{total} {'deleted' if delete else 'could be deleted (--delete does it)'}"
    rows = [["what", "bytes", "why"], *([item.url, size(item.bytes), item.why] for item in found)]
    text = f"{table(rows)}\n{verdict}" if found else f"{opened.root}: nothing to delete"
    value: dict[str, Any] = {
        "store": opened.root,
        "deleted": delete,
        "items": [item._asdict() for item in found],
    }
    say(text, json_file, value)
