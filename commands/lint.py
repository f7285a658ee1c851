"""The command `lint`: reads a whole store, or a sample of its shards, and checks it."""

from contextlib import closing
from dataclasses import dataclass
from typing import Annotated, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.settings import setting
from densecli.shards.config import StoreSettings


@dataclass(frozen=True, kw_only=True)
class LintSettings(StoreSettings):
    """The settings of lint."""

    sample: int | None = setting(
        None,
        help="Reads only this many shards of each column, the same of all.",
        group="data",
        min=1,
        metavar="N",
        default_text="every shard",
    )
    seed: int = setting(0, help="Seed of the choice of --sample.", group="data")
    workers: int = setting(8, help="Threads that read shards.", group="speed", min=1, metavar="N")


class Finding(TypedDict):
    """What lint found."""

    url: Annotated[str, "File or folder."]
    trouble: Annotated[str, "What is wrong, a sentence."]
    remedy: Annotated[str, "What helps, a sentence."]
    leftover: Annotated[bool, "Whether a killed writer left it, so that nothing of the store is wrong."]
    advice: Annotated[bool, "Whether nothing is wrong, but readers would be faster without it."]


class Checked(TypedDict):
    """What was read of a store."""

    store: Annotated[str, "Address of the store."]
    shards: Annotated[int, "Shards read."]
    of: Annotated[int, "Shards of all columns."]
    findings: Annotated[list[Finding], "What is wrong, or was left behind."]


@command(LintSettings, results=(Result(fields=Checked),))
def lint(options: Options) -> int:
    """Read a whole store and check every receipt, manifest, digest, key and count. Changes nothing.

    Exits with 1 where something is wrong, and says what to rebuild. Files that killed writers left, and
    columns without a manifest, are listed, but do not count as wrong.

    \b
    densecli lint stores/coco-512
    densecli lint --store stores/sa1b-1024 --sample 100 --seed 1
    """
    from densecli.core.progress import Progress
    from densecli.shards import lint as linter
    from densecli.shards.parted_store import open_store, parts_of

    config = options.make(LintSettings, store=options.store)
    store = open_store(config.store)
    parts = parts_of(store)
    total = sum(linter.count(part, config.sample) for part in parts)
    with closing(Progress(total, "shards")) as progress:
        findings = [
            finding
            for part in parts
            for finding in linter.lint(
                part, progress.advance, workers=config.workers, sample=config.sample, seed=config.seed
            )
        ]
    lines = [f"{finding.trouble} {finding.remedy}" for finding in findings]
    wrong = [finding for finding in findings if finding.wrong]
    leftovers = sum(finding.leftover for finding in findings)
    left = f", {leftovers} left by killed writers" if leftovers else ""
    of = sum(map(linter.count, parts))
    read = f" in {total} of {of} shards" if total < of else ""
    lines.append(f"{store.root}: {len(wrong) or 'no'} finding{'' if len(wrong) == 1 else 's'}{read}{left}")
    value = {
        "store": store.root,
        "shards": total,
        "of": of,
        "findings": [finding._asdict() for finding in findings],
    }
    options.say("\n".join(lines), value)
    return 1 if wrong else 0
