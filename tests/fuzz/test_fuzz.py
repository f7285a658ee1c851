"""A few inputs of every target, always the same ones, and that the frame sees what an input must not do."""

import os
import random
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Unreadable

from .frame import FellShort, Target, targets, try_seed

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", targets().values(), ids=lambda target: target.name)
def test_inputs__are_used_refused_or_passed_over(target: Target, tmp_path: Path) -> None:
    ends = {try_seed(target, seed, tmp_path) for seed in range(target.quick)}
    # Otherwise the inputs are so odd that nothing behind the first check is tried.
    assert "used" in ends


DIGESTS = """
import hashlib, shutil, sys
from pathlib import Path
from unittest.mock import patch
from tests.fuzz import frame

def rmtree(folder, *arguments, **options):
    if Path(folder).name == name:
        files = [path for path in sorted(Path(folder).rglob("*")) if path.is_file()]
        # An index says when its folder was changed.
        data = [path.read_bytes() for path in files if "index" not in path.parts]
        print(name, hashlib.sha256(b"".join(data)).hexdigest())
    remove(folder, *arguments, **options)

remove = shutil.rmtree
for target in frame.targets().values():
    for seed in range(2):
        name = f"{target.name}-{seed}"
        with patch("shutil.rmtree", rmtree):
            frame.try_seed(target, seed, Path(sys.argv[1]))
"""


def test_inputs__follow_from_their_seed_alone(tmp_path: Path) -> None:
    """Otherwise a test tries inputs that nobody has tried before."""
    found = []
    for hash_seed in "12":
        words = [sys.executable, "-c", DIGESTS, str(tmp_path / "work")]
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        done = subprocess.run(words, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
        found.append(done.stdout.splitlines())
    assert len(found[0]) == 2 * len(targets()) and found[0] == found[1]


def allocate() -> None:
    assert len(b"\1" * 400_000_000) == 400_000_000


def write_outside(folder: Path) -> None:
    (folder.parent / "elsewhere").write_text("x")


def connect() -> None:
    with socket.socket() as client:
        client.connect_ex(("127.0.0.1", 9))


def refuse(text: str) -> None:
    raise DenseCLIError(text)


WRONGS = {
    "a traceback": (lambda _: int("x"), "ValueError"),
    "a long time": (lambda _: time.sleep(60), "took more than 0.2 seconds"),
    "much memory": (lambda _: allocate(), r"took 4\d\d MB"),
    "a file of others": (lambda folder: (folder.parent / "outside" / "secret.txt").read_text(), "secret.txt"),
    "a file elsewhere": (write_outside, "elsewhere to write"),
    "a folder elsewhere": (lambda folder: os.mkdir(folder.parent / "elsewhere"), "elsewhere to write"),
    "a connection": (lambda _: connect(), "socket.connect"),
    "a look-up": (lambda _: socket.getaddrinfo("127.0.0.1", 9), "socket.getaddrinfo"),
    "a process": (lambda _: subprocess.run([sys.executable, "-c", ""], check=True), "subprocess.Popen"),
    "no sentence": (lambda _: refuse("Traceback (most recent call last)"), "no sentence"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_frame__sees(wrong: str, tmp_path: Path) -> None:
    do, said = WRONGS[wrong]
    seconds = 0.2 if wrong == "a long time" else 30
    target = Target(name="x", try_one=lambda _, folder: do(folder), seconds=seconds, megabytes=300)
    with pytest.raises(FellShort, match=said):
        try_seed(target, 0, tmp_path)


def test_frame__lets_pass_a_sentence_a_reason_and_what_is_in_the_folder(tmp_path: Path) -> None:
    def try_one(rng: random.Random, folder: Path) -> None:
        (folder / "a").write_text("x")
        if rng.random() < 0.5:
            raise DenseCLIError("A sentence.", hint="A hint.")
        raise Unreadable("corrupt")

    ends = {try_seed(Target(name="x", try_one=try_one), seed, tmp_path) for seed in range(20)}
    assert ends == {"refused", "passed over: corrupt"}
    assert not list(tmp_path.iterdir())
