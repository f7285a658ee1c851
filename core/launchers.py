"""What launchers tell a process about its place among the others: torchrun, srun and mpirun."""

from collections.abc import Mapping
from dataclasses import dataclass

from densecli.core.errors import DenseCLIError

PORT = 29500
"""Port of the first process, if nothing else is said; torchrun's default."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """A process among those that a launcher started.

    Attributes:
        rank: Its number, counted from 0.
        world_size: Number of processes.
        local_rank: Its number on its machine.
        address: Host of the first process.
        port: Port of the first process.
    """

    rank: int
    world_size: int
    local_rank: int
    address: str
    port: int


def place_of(environ: Mapping[str, str]) -> Place | None:
    """Reads what a launcher has put into the environment.

    A job's own script, which Slurm starts once, is not a process of `srun`. MASTER_ADDR and MASTER_PORT win
    over what is guessed for srun and mpirun.

    Args:
        environ: The environment.

    Returns:
        The place of this process; None if no launcher started it.

    Raises:
        DenseCLIError: mpirun started processes on several machines, and nothing says where the first one is.
    """
    if "TORCHELASTIC_RUN_ID" in environ:
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        return _place(environ, names, environ["MASTER_ADDR"])
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        port = PORT + int(environ.get("SLURM_JOB_ID", 0)) % 1000
        return _place(environ, names, first_host(environ["SLURM_STEP_NODELIST"]), port)
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
        alone = environ["OMPI_COMM_WORLD_LOCAL_SIZE"] == environ["OMPI_COMM_WORLD_SIZE"]
        if not alone and "MASTER_ADDR" not in environ:
            raise DenseCLIError(
                "mpirun does not say on which machine the first process is.",
                hint="Name it: mpirun -x MASTER_ADDR=HOST ...",
            )
        return _place(environ, names, "127.0.0.1")
    return None


def _place(environ: Mapping[str, str], names: tuple[str, str, str], address: str, port: int = PORT) -> Place:
    rank, world_size, local_rank = (int(environ[name]) for name in names)
    return Place(
        rank=rank,
        world_size=world_size,
        local_rank=local_rank,
        address=environ.get("MASTER_ADDR", address),
        port=int(environ.get("MASTER_PORT", port)),
    )


def first_host(hosts: str) -> str:
    """The first of Slurm's list of hosts: `n01` of `n[01-04,07],m2`."""
    name, bracket, rest = hosts.partition("[")
    if not bracket or "," in name:
        return name.partition(",")[0]
    numbers, _, after = rest.partition("]")
    first = numbers.partition(",")[0].partition("-")[0]
    return f"{name}{first}{after.partition(',')[0]}"
