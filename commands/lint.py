"""The command `lint`: reads a whole store and checks it."""

from contextlib import closing

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.shards.config import StoreSettings


@command(StoreSettings)
def lint(options: Options) -> int:
    """Read a whole store and check every receipt, digest, key and count. Changes nothing.

    Exits with 1 where something is wrong, and says what to rebuild. Files that killed writers left are
    listed, but do not count as wrong.

    \b
    densecli lint --store stores/coco-512
    """
    from densecli.core.progress import Progress
    from densecli.shards import lint as linter
    from densecli.shards.parted_store import open_store, parts_of

    store = open_store(options.store)
    parts = parts_of(store)
    with closing(Progress(sum(map(linter.count, parts)), "shards")) as progress:
        findings = [finding for part in parts for finding in linter.lint(part, progress.advance)]
    lines = [f"{finding.trouble} {finding.remedy}" for finding in findings]
    wrong = [finding for finding in findings if not finding.leftover]
    left = f", {len(findings) - len(wrong)} left by killed writers" if len(wrong) < len(findings) else ""
    lines.append(f"{store.root}: {len(wrong) or 'no'} finding{'' if len(wrong) == 1 else 's'}{left}")
    value = {"store": store.root, "findings": [finding._asdict() for finding in findings]}
    options.say("\n".join(lines), value)
    return 1 if wrong else 0
