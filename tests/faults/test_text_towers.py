"""A process is killed while its text tower works: the next one computes what is left, with the same bytes."""

import os
import subprocess
import sys
import time
from pathlib import Path

NAMES, BATCHES = 12, 60

SCRIPT = f"""
import sys, time, torch
from densecli.models import text
from densecli.models.categories import load_categories
from densecli.models.registry import build, resolve
from densecli.models.dense import DenseCLIP

text.BATCH_SIZE, text.KEEP_SECONDS = 16, 0
encode, pause = DenseCLIP.encode_text, float(sys.argv[1])

def slow(self, tokens):
    print("batch", flush=True)
    time.sleep(pause)
    return encode(self, tokens)

DenseCLIP.encode_text = slow
torch.manual_seed(0)
model = build(resolve("scenes-s"))
names = load_categories("scenes").names[:{NAMES}]
templates = ["the " * (i % 7) + "a photo of a {{}}" for i in range(16 * {BATCHES} // {NAMES})]
text.category_embeddings(model, names, templates=templates)
"""


def start(cache: Path, pause: float) -> subprocess.Popen[str]:
    environment = {**os.environ, "DENSECLI_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", SCRIPT, str(pause)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def finished(cache: Path) -> tuple[int, bytes]:
    """How many batches a whole run computes, and the bytes that it keeps."""
    with start(cache, 0) as process:
        output, _ = process.communicate(timeout=6000)
    assert process.returncode == 0
    [kept] = (cache / "text").glob("*.npy")
    return output.count("batch"), kept.read_bytes()


def test_text_embeddings__what_a_killed_process_did_is_kept(tmp_path: Path) -> None:
    all_of_them, expected = finished(tmp_path / "whole")
    assert all_of_them == BATCHES
    cache = tmp_path / "killed"
    with start(cache, 0.1) as process:
        assert process.stdout
        for _ in range(20):
            process.stdout.readline()
        time.sleep(0.05)
        process.kill()
        rest, _ = process.communicate(timeout=600)
    begun = 20 + rest.count("batch")
    assert begun < BATCHES and not list((cache / "text").glob("*.npy"))
    left, found = finished(cache)
    # The batch that was under way is lost, and perhaps the one before it.
    assert BATCHES - begun < left <= BATCHES - begun + 2
    assert found == expected
    assert not list((cache / "text").glob("*.part"))
