"""Which columns of a store a run reads."""

from shards.errors import DenseCLIError
from shards.keys import short_id
from shards.store import Column, Store


def find_targets(store: Store, kind: str, name: str | None) -> Column:
    """The store's target column of a kind ("labels"), called `name` where that is given (NAME or NAME-ID).

    Raises DenseCLIError where there is none, with the command that makes it, or where there are several.
    """
    columns = [c for c in store.columns("targets") if c.spec["target"]["name"] == kind]
    found = [c for c in columns if name in (None, c.name, f"{c.name}-{c.id}")]
    if len(found) == 1:
        return found[0]
    if found:
        raise DenseCLIError(
            f"The store at {store.root} has {len(found)} {kind} columns.",
            hint=f"Choose one with --teacher: {', '.join(f'{c.name}-{c.id}' for c in found)}.",
        )
    raise DenseCLIError(
        f"The store at {store.root} has no {kind} column{f' of {name}' if name else ''}.",
        hint=f"Make it with: densecli build-shards --teacher {name or 'vitb16'} "
        f"--dataset {store.dataset['name']} --store {store.root}",
    )


def regions_of(store: Store, target: Column) -> Column:
    """The regions column that a target column was made for."""
    wanted = target.spec["regions"]
    for column in store.columns("regions"):
        if column.key == wanted:
            return column
    raise DenseCLIError(
        f"The store at {store.root} lacks the regions {short_id(wanted)} of its column {target.name}.",
        hint="Run its build-shards command again: it makes what is missing.",
    )
