"""Which columns of a store a run reads."""

import shlex

from shards.errors import DenseCLIError
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
        hint=f"Make it with: {_build_command(store, name)}",
    )


def _build_command(store: Store, teacher: str | None) -> str:
    """The command line that adds a teacher's column to a store, whatever the store was made of."""
    dataset = store.dataset
    generated = dataset["name"] == "scenes"
    flags = {
        "teacher": teacher or ("scenes-pvlm" if generated else "vitb16"),
        "dataset": dataset["name"],
        "split": dataset["split"],
        "limit": dataset["n"],
        "seed": dataset.get("seed", ""),
        "canvas": store.canvas,
        "shard-size": store.shard_sizes[0],
        "store": store.root,
    }
    words = [word for flag, value in flags.items() if value != "" for word in (f"--{flag}", str(value))]
    command = shlex.join(["densecli", "build-shards", *words])
    # A store does not say where its photos were: it may have been made on another machine.
    return command if generated else f"{command} (and --data DIR, if the photos are not in the default place)"
