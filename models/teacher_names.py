"""The names of a teacher's column: its own, and the same with another name of its model."""

from densecli.core.errors import DenseCLIError
from densecli.models.registry import MODELS
from densecli.shards.kinds import KINDS
from densecli.shards.store import Column, Store


def names_of(column: Column) -> set[str]:
    """NAME and NAME-ID of a column of targets, and NAME with each other name of its model."""
    own = {column.name, column.full_name}
    if column.target_kind not in KINDS:
        # Of a plug-in that is not loaded.
        return own
    prefix = KINDS[column.target_kind].prefix
    model = column.name.removeprefix(prefix)
    if model not in MODELS:
        return own
    arch = MODELS[model]
    names = (arch.name, *arch.aliases)
    # A tuned model has the architecture's name in its entry, and weights of its own.
    return own | {f"{prefix}{name}" for name in names} if model in names else own


def find_teacher_column(store: Store, name: str) -> Column:
    """Finds a column of targets by any of its names.

    Raises:
        DenseCLIError: See `Store.find`.
    """
    try:
        return store.find("targets", name)
    except DenseCLIError:
        found = [column for column in store.columns("targets") if name in names_of(column)]
        if len(found) != 1:
            raise
        return found[0]
