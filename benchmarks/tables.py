"""The tables of docs/ablations.md, unattended: builds the columns, then runs every ablation that is missing.

    python benchmarks/tables.py                       # all of them, the most important first
    python benchmarks/tables.py methods lambda-sc     # some
    python benchmarks/tables.py --list

Each is `densecli ablate` of a shipped spec, on one store of 480 generated scenes; those of the section
"Decoupling under the paper's conditions" vary the P-VLM and the student of `decoupling-biased`. Every run
leaves its results in OUT/TABLE/RUN/ablation.json, and the same command continues after an interruption.
"""

import argparse
import subprocess
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

from densecli.ablation.spec import shipped

SCENES = 480
COLUMNS = (
    "scenes-pvlm",
    "scenes-pvlm-unbiased",
    "crops-scenes-s",
    "self-scenes-s",
    "scenes-vfm",
)
POINTS = 4
"""Points along a side of a region that `spatial` compares: a cell is 1.3 to 4 tokens wide."""
PVLMS = {"biased": "scenes-pvlm", "unbiased": "scenes-pvlm-unbiased"}
# The weak student is an untuned CLIP, the decent one is tuned by CLIPSelf, and the biased one has learnt the
# biased P-VLM's labels, things and stuff together.
STUDENTS = ("decent", "weak", "biased")
ROWS = 'decoupling = ["none", "full", "stuff-only", "densevlm"]'
BETAS = "beta = [0.03, 0.3]"
CONDITIONS = {
    f"{pvlm}-pvlm-{student}-student-{grid}": (pvlm, student, rows)
    for (grid, rows), pvlm, student in product((("rows", ROWS), ("betas", BETAS)), PVLMS, STUDENTS)
}
SPECS = (
    *("methods", "lambda-sc", "refiner-depth", "decoupling", "terms", "theta", "views", "pvlm"),
    *("lambda", "temperature", "alpha", "blocks", "input-size"),
)
DEPTHS = (1, 2, 3, 4)
"""Blocks of the Refiners of `refiner-depth`. The other tables have one Refiner, of the default depth."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE")
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--list", action="store_true", help="lists the tables")
    args = parser.parse_args()
    known = [*CONDITIONS, *SPECS]
    if args.list:
        print(*known, sep="\n")
        return
    if strays := set(args.tables) - set(known):
        parser.error(f"no such table: {', '.join(sorted(strays))}")
    failed = [name for name in args.tables or known if not run(name, args.out.resolve())]
    if failed:
        raise SystemExit(f"These tables have runs that failed: {', '.join(failed)}.")


def run(name: str, out: Path) -> bool:
    """Runs one table; whether all its runs succeeded."""
    out.mkdir(parents=True, exist_ok=True)
    store = out / "store"
    if name in CONDITIONS:
        spec = out / f"{name}.toml"
        spec.write_text(conditions(name, out))
        build(out, PVLMS.values())
        if CONDITIONS[name][1] == "biased":
            biased_student(out)
    else:
        spec = shipped()[f"scenes/{name}"]
        build(out, COLUMNS)
        refined(out, "refiner")
        for depth in DEPTHS if name == "refiner-depth" else ():
            refined(out, f"refiner-{depth}", "--depth", depth)
        if name == "pvlm":
            build(out, ("scenes-s", "scenes-l"))
    return densecli(out, "ablate", spec, "--store", store, "--run", out / name)


def conditions(name: str, out: Path) -> str:
    """The spec of one P-VLM and one student."""
    pvlm, student, rows = CONDITIONS[name]
    started = {
        "weak": 'student = "scenes-s"',
        "decent": 'student = "scenes-s-clipself"',
        "biased": f'init = "{out / "biased-student"}"',
    }[student]
    return f"""title = "Decoupling: {pvlm} P-VLM, {student} student"
beside = ["scenes-s", "scenes-s-clipself", "{PVLMS[pvlm]}"]

[train]
method = "densevlm"
teacher = "{PVLMS[pvlm]}"
{started}
max-steps = 200
batch-size = 24
lr = 3e-5

[grid]
{rows}
seed = [0, 1, 2]

[evaluate]
batch-size = 50
"""


def build(out: Path, teachers: Sequence[str], *more: object) -> None:
    """Adds the columns of teachers to the store, where they are missing."""
    named = [word for teacher in teachers for word in ("--teacher", teacher)]
    size = ("--dataset", "scenes", "--limit", SCENES, "--side", POINTS)
    must(out, "build-shards", *size, "--store", out / "store", *named, *more)


def refined(out: Path, name: str, *settings: object) -> None:
    """Trains a Refiner of the student, and adds the column of its tokens."""
    run = out / "runs" / name
    length = ("--max-steps", 300, "--batch-size", 24, "--lr", 3e-4)
    must(
        out, "train-refiner", "--store", out / "store", "--run", run, "--student", "scenes-s",
        *length, *settings,
    )  # fmt: skip
    weights = f"refiner-scenes-s={run / 'export' / 'refiner.safetensors'}"
    build(out, ("refiner-scenes-s",), "--weights", weights)


def biased_student(out: Path) -> None:
    """Trains a student that is as biased as the P-VLM."""
    length = ("--max-steps", 300, "--batch-size", 24, "--lr", 3e-4, "--alpha", 1)
    must(
        out, "train", "--store", out / "store", "--run", out / "biased-student", "--student", "scenes-s",
        "--teacher", PVLMS["biased"], "--decoupling", "none", *length,
    )  # fmt: skip


def must(out: Path, *words: object) -> None:
    """Runs a command of densecli that has to succeed."""
    if not densecli(out, *words):
        raise SystemExit(1)


def densecli(out: Path, *words: object) -> bool:
    """Runs a command of densecli in the folder OUT, as specs name Refiners there; whether it succeeded."""
    command = [sys.executable, "-m", "densecli", *map(str, words)]
    print(*command[2:], flush=True)
    return subprocess.run(command, cwd=out, check=False).returncode == 0


if __name__ == "__main__":
    main()
