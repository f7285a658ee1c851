import pytest

from densecli.core.errors import DenseCLIError
from densecli.core.launchers import PORT, Place, first_host, place_of

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1234",
}
SRUN = {
    "SLURM_JOB_ID": "7042",
    "SLURM_NTASKS": "8",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NODELIST": "gpu[03-04]",
}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


@pytest.mark.parametrize(
    ("environ", "place"),
    [
        (TORCHRUN, Place(rank=3, world_size=4, local_rank=1, address="a", port=1234)),
        (SRUN, Place(rank=5, world_size=8, local_rank=1, address="gpu03", port=PORT + 42)),
        (MPIRUN, Place(rank=1, world_size=2, local_rank=1, address="127.0.0.1", port=PORT)),
        (
            {**MPIRUN, "OMPI_COMM_WORLD_LOCAL_SIZE": "1", "MASTER_ADDR": "b", "MASTER_PORT": "77"},
            Place(rank=1, world_size=2, local_rank=1, address="b", port=77),
        ),
    ],
)
def test_place_of__launcher(environ: dict[str, str], place: Place) -> None:
    assert place_of(environ) == place


@pytest.mark.parametrize(
    "environ",
    [
        {},
        # The script of a job is started once, whatever the number of tasks.
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"},
        {**SRUN, "SLURM_STEP_NUM_TASKS": "1"},
        {**MPIRUN, "OMPI_COMM_WORLD_SIZE": "1"},
    ],
)
def test_place_of__a_process_alone(environ: dict[str, str]) -> None:
    assert place_of(environ) is None


def test_place_of__mpirun_on_machines_without_an_address() -> None:
    with pytest.raises(DenseCLIError, match="mpirun does not say") as caught:
        place_of({**MPIRUN, "OMPI_COMM_WORLD_LOCAL_SIZE": "1"})
    assert "-x MASTER_ADDR=HOST" in caught.value.hint


@pytest.mark.parametrize(
    ("hosts", "first"),
    [
        ("n1", "n1"),
        ("n1,n2", "n1"),
        ("n[01-04,07],m2", "n01"),
        ("n[7],m", "n7"),
        ("a,n[1-2]", "a"),
        ("r[1-2]-x,b", "r1-x"),
    ],
)
def test_first_host(hosts: str, first: str) -> None:
    assert first_host(hosts) == first
