"""The number of dimensions of stored embeddings, which has to be the student's where the two are compared."""

from densecli.core.errors import DenseCLIError
from densecli.shards.npz import decode_npz
from densecli.shards.store import Column
from densecli.shards.tars import read_shard


def embedding_width(column: Column) -> int:
    """C, the number of dimensions of a column's embeddings. Raises DenseCLIError if it has none."""
    for shard in column.shard_names:
        for _, members in read_shard(column, shard):
            return int(column.codec.decode(decode_npz(members["npz"])).shape[1])
    raise DenseCLIError(
        f"The column {column.url} has no photo.", hint="Run its build: it continues where it stopped."
    )


def check_width(teacher: int, student: int, what: str, hint: str) -> None:
    """Compares the dimensions of a teacher's and of a student's embeddings.

    Args:
        teacher: Those of the teacher.
        student: Those of the student.
        what: Names the teacher's embeddings in the error, such as "The crops of NAME".
        hint: Hint of the error.

    Raises:
        DenseCLIError: They differ.
    """
    if teacher != student:
        raise DenseCLIError(
            f"{what} have {teacher}-dimensional embeddings, but the student's have {student} dimensions.",
            hint=hint,
        )
