"""The command `gc`: lists or deletes what no run needs any more."""

from dataclasses import dataclass
from typing import Annotated, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result
from densecli.core.settings import setting
from densecli.shards.config import StoreSettings


@dataclass(frozen=True, kw_only=True)
class CollectSettings(StoreSettings):
    """The settings of gc."""

    runs: str = setting(
        "runs", help="Folder of the runs that use the store.", group="data", metavar="DIR", path=True
    )
    keep: tuple[str, ...] = setting(
        (),
        help="Column to keep: NAME or NAME-ID, by any name of its model. May be given several times.",
        group="data",
        metavar="NAME",
        default_text="those that runs name",
    )
    min_age: float = setting(
        1.0,
        help="Keeps everything that was written in the last HOURS hours.",
        group="data",
        min=0,
        metavar="HOURS",
    )
    leftovers: bool = setting(
        False, help="Lists only files that killed writers left behind, and no columns.", group="data"
    )
    delete: bool = setting(False, help="Deletes what is listed.", group="run")


class Rubbish(TypedDict):
    """A file or column that nothing needs."""

    url: Annotated[str, "File or folder."]
    bytes: Annotated[int, "Its bytes."]
    why: Annotated[str, "Why it is not needed."]
    column: Annotated[bool, "Whether it is a whole column."]


class Collected(TypedDict):
    """What no run needs."""

    store: Annotated[str, "Address of the store."]
    deleted: Annotated[bool, "Whether it was deleted."]
    items: Annotated[list[Rubbish], "Each file and column."]


@command(CollectSettings, results=(Result(fields=Collected),))
def gc(options: Options) -> None:
    """List, or delete, columns that no run uses and files that killed writers left behind.

    A column is used if the config.json of a run or --keep names it. If no column is used, none is listed.

    \b
    densecli gc stores/coco-512 --keep vitl14
    densecli gc stores/coco-512 --keep vitl14 --delete
    """
    from densecli.core.tables import size, table
    from densecli.models.teacher_names import names_of
    from densecli.shards import gc as collector
    from densecli.shards.parted_store import open_store, parts_of
    from densecli.shards.store import Store

    config = options.make(CollectSettings, store=options.store)
    store = open_store(config.store)

    def by_its_own_name(name: str, part: Store) -> str:
        found = [column.full_name for column in part.columns("targets") if name in names_of(column)]
        return found[0] if len(found) == 1 else name

    found = [
        item
        for part in parts_of(store)
        for item in collector.garbage(
            part,
            runs=config.runs,
            keep=[by_its_own_name(name, part) for name in config.keep],
            min_age=config.min_age * 3600,
            leftovers=config.leftovers,
        )
    ]
    if config.delete:
        collector.delete(found)
    total = size(sum(item.bytes for item in found))
    verdict = f"{total} {'deleted' if config.delete else 'could be deleted (--delete does it)'}"
    rows = [["what", "bytes", "why"], *([item.url, size(item.bytes), item.why] for item in found)]
    text = f"{table(rows)}\n{verdict}" if found else f"{store.root}: nothing to delete"
    items = [item._asdict() for item in found]
    options.say(text, {"store": store.root, "deleted": config.delete, "items": items})
