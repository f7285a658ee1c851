"""Looks at a machine: versions, devices, limits and room, each with what helps where something is wrong."""

import os
import platform
import resource
import shutil
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import Any, Literal

from densecli.core.addresses import public
from densecli.core.tables import counted, size

Status = Literal["ok", "note", "problem"]
LEAST_ROOM = 10e9
"""Bytes of a disk below which a note says so: one CLIP of size L with its text embeddings takes 2 GB."""
LEAST_SHM = 1e9
"""Bytes of /dev/shm below which a note says so: Docker's default, 64 MB, is too little for Ray's objects."""
LEAST_FILES = 1024
SECONDS = 5.0
"""How long the hub may take to answer."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: What it is.
        status: `note` where some commands are slower or need another option, `problem` where some fail.
        found: What was found, one line.
        hint: What helps; empty if nothing is wrong.
    """

    name: str
    status: Status
    found: str
    hint: str = ""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return asdict(self)


def examine() -> Iterator[Check]:
    """Looks at this machine, one thing after another. No check raises: a failed one is a problem."""
    checks: list[Callable[[], Check]] = [check_python, check_packages, check_torch, check_torchvision]
    checks += [check_devices, check_nccl, check_ray, check_processor, check_shared_memory, check_open_files]
    checks += [check_disk, check_hub]
    for check in checks:
        name = check.__name__.removeprefix("check_").replace("_", " ")
        try:
            yield check()
        # Broken installations raise errors of any kind.
        except Exception as error:
            cause = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            yield Check(
                name=name, status="problem", found=cause, hint="Install densecli again, in a new venv."
            )


def check_python() -> Check:
    """The version of Python."""
    found = f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    return Check(name="python", status="ok", found=found)


def check_packages() -> Check:
    """Whether every package that densecli needs is there, in a version that it takes."""
    from packaging.requirements import Requirement

    wrong, count = [], 0
    for text in requires("densecli") or ():
        wanted = Requirement(text)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        count += 1
        try:
            there = version(wanted.name)
        except PackageNotFoundError:
            wrong.append(f"{wanted.name} is missing")
            continue
        if not wanted.specifier.contains(there, prereleases=True):
            wrong.append(f"{wanted.name} {there} is not {wanted.specifier}")
    if wrong:
        hint = "Install densecli again: python -m pip install --upgrade densecli."
        return Check(name="packages", status="problem", found="; ".join(wrong), hint=hint)
    found = f"densecli {version('densecli')}, and all {count} packages that it needs"
    return Check(name="packages", status="ok", found=found)


def check_torch() -> Check:
    """torch's version, and whether its build is for this machine's GPU."""
    import torch

    built = f"for CUDA {torch.version.cuda}" if torch.version.cuda else "for the CPU"
    found = f"{torch.__version__}, built {built}"
    if not torch.version.cuda and shutil.which("nvidia-smi"):
        hint = "This machine has an NVIDIA driver: install a build for CUDA (pytorch.org, Get started)."
        return Check(name="torch", status="problem", found=found, hint=hint)
    return Check(name="torch", status="ok", found=found)


def check_torchvision() -> Check:
    """Whether torchvision's compiled operators fit torch: those of another build fail when called."""
    import torch
    import torchvision

    boxes = torch.tensor([[0.0, 0.0, 1.0, 1.0]])
    torchvision.ops.roi_align(torch.zeros(1, 1, 2, 2), [boxes], 1)
    return Check(name="torchvision", status="ok", found=f"{torchvision.__version__}, its operators run")


def check_devices() -> Check:
    """The devices that --device auto chooses among."""
    import torch

    from densecli.core.device import pick_device

    chosen = pick_device("auto").type
    if chosen == "cuda":
        each = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
        found = ", ".join(f"{gpu.name} ({gpu.total_memory / 1e9:.0f} GB)" for gpu in each)
        torch.zeros(1, device="cuda").add_(1)
        return Check(name="devices", status="ok", found=found)
    if chosen == "mps":
        return Check(name="devices", status="ok", found="Apple's GPU (mps)")
    hint = "Training and building large stores take a GPU. densecli plan says how long they take."
    if torch.version.cuda:
        hint += " If there is one, look at nvidia-smi and CUDA_VISIBLE_DEVICES."
    return Check(name="devices", status="note", found="the CPU alone", hint=hint)


def check_nccl() -> Check:
    """NCCL, by which the GPUs of a training talk."""
    import torch

    if torch.cuda.is_available() and torch.distributed.is_nccl_available():
        number = torch.cuda.nccl.version()
        return Check(name="nccl", status="ok", found=".".join(map(str, number)))
    if torch.cuda.device_count() > 1:
        hint = "A training on several GPUs needs a build of torch with NCCL."
        return Check(name="nccl", status="problem", found="missing", hint=hint)
    return Check(name="nccl", status="ok", found="not needed without several GPUs")


def check_ray() -> Check:
    """Ray, which builds and relabellings run on."""
    found = version("ray")
    folder = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    free = shutil.disk_usage(folder).free
    if free < LEAST_ROOM / 10:
        hint = "Make room, or set RAY_TMPDIR to another folder."
        return Check(name="ray", status="problem", found=f"{found}; {size(free)} in {folder}", hint=hint)
    return Check(name="ray", status="ok", found=f"{found}; {size(free)} free in {folder}")


def check_processor() -> Check:
    """Cores and memory that this process may use."""
    usable = getattr(os, "sched_getaffinity", None)
    cores = len(usable(0)) if usable else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = _container_limit()
    within = f", of which this container may use {size(limit)}" if limit and limit < memory else ""
    return Check(
        name="processor", status="ok", found=f"{counted(cores, 'core')}, {size(memory)} of memory{within}"
    )


def check_shared_memory() -> Check:
    """/dev/shm, where Ray and DataLoader workers keep what they share."""
    folder = Path("/dev/shm")
    if not folder.is_dir():
        return Check(name="shared memory", status="ok", found="no /dev/shm on this system")
    total = shutil.disk_usage(folder).total
    if total < LEAST_SHM:
        hint = "In a container: docker run --shm-size=8g."
        return Check(name="shared memory", status="note", found=f"{size(total)} in /dev/shm", hint=hint)
    return Check(name="shared memory", status="ok", found=f"{size(total)} in /dev/shm")


def check_open_files() -> Check:
    """How many files a process may have open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = hard if hard != resource.RLIM_INFINITY else sys.maxsize
    found = f"{soft}" if soft == hard else f"{soft}, up to {most if most < sys.maxsize else 'any number'}"
    if soft < LEAST_FILES:
        hint = f"Raise the limit: ulimit -n {min(65536, most)}."
        return Check(name="open files", status="note", found=found, hint=hint)
    return Check(name="open files", status="ok", found=found)


def check_disk() -> Check:
    """Room where stores, runs and weights go by default."""
    from huggingface_hub import constants

    folders = {"here": Path.cwd(), "for downloaded weights": _existing(Path(constants.HF_HUB_CACHE))}
    free = {where: shutil.disk_usage(folder).free for where, folder in folders.items()}
    found = ", ".join(f"{size(bytes)} free {where}" for where, bytes in free.items())
    if min(free.values()) < LEAST_ROOM:
        hint = "Make room; HF_HOME moves downloaded weights. densecli plan says how large a store becomes."
        return Check(name="disk", status="note", found=found, hint=hint)
    return Check(name="disk", status="ok", found=found)


def check_hub() -> Check:
    """Whether the hub that weights come from answers."""
    from huggingface_hub import constants

    shown = public(constants.ENDPOINT)
    if constants.HF_HUB_OFFLINE:
        hint = "Weights come from the cache or from --weights NAME=PATH."
        return Check(
            name="hub", status="note", found="offline, as --offline or HF_HUB_OFFLINE says", hint=hint
        )
    hint = "Give --weights NAME=PATH, or set HF_ENDPOINT to a mirror, or HTTPS_PROXY."
    try:
        if not constants.ENDPOINT.startswith(("http://", "https://")):
            raise ValueError("HF_ENDPOINT is no address of a web server")
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:
            return Check(name="hub", status="ok", found=f"{shown} answers ({answer.status})")
    except urllib.error.HTTPError as error:
        # It is there: not every mirror has a first page.
        return Check(name="hub", status="ok", found=f"{shown} answers ({error.code})")
    except (OSError, ValueError) as error:
        cause = str(getattr(error, "reason", error))[:160]
        return Check(name="hub", status="note", found=f"{shown} does not answer: {cause}", hint=hint)


def _container_limit() -> int | None:
    """Bytes of memory that the control group of this process may use; None if that is not limited."""
    try:
        text = Path("/sys/fs/cgroup/memory.max").read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None


def _existing(folder: Path) -> Path:
    while not folder.exists():
        folder = folder.parent
    return folder
