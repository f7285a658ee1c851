"""The tables of docs/ablations.md, unattended: builds the columns, then runs every ablation that is missing.

    python benchmarks/tables.py                       # all of them, the most important first
    python benchmarks/tables.py methods lambda-sc     # some
    python benchmarks/tables.py --list
    python benchmarks/tables.py --markdown            # what is measured so far, without running anything

Each is `densecli ablate` of a shipped spec, on one store of 480 generated scenes; `scaling` is `densecli
scaling`, on one of 960. Those of the section "Decoupling under the paper's conditions" vary the P-VLM and the
student of `decoupling-biased`; `deep` has the student of deep_student.py. Every run leaves its results in
OUT/TABLE/RUN/ablation.json, and the same command continues after an interruption.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

from densecli.ablation.aggregate import SettingRow, aggregate, cost_table, settings_table
from densecli.ablation.runs import RunResult, figures_of, photos_seen, recorded
from densecli.ablation.spec import Spec, load_spec, shipped
from densecli.ablation.teacher_cost import teacher_costs
from densecli.commands.ablate import make_runner
from densecli.core.page import Table
from densecli.shards.datasets import DATASETS
from densecli.shards.parted_store import open_store

SCENES = 480
MANY_SCENES = 960
"""Scenes of the store of `scaling`, a sixteenth of which is more than a step."""
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
    for pvlm, (grid, rows), student in product(PVLMS, (("rows", ROWS), ("betas", BETAS)), STUDENTS)
}
PLUGIN = Path(__file__).with_name("deep_student.py")
DEEP = "scenes-deep"
BIASED = ("scenes-pvlm",)
UNBIASED = ("scenes-pvlm-unbiased",)
RULES = ("average", "vote", "agree")
OF_THE_STUDENT = ("crops-scenes-s", "self-scenes-s")
EVERYTHING = (*UNBIASED, *OF_THE_STUDENT, "scenes-vfm")
COLUMNS: dict[str, Sequence[str]] = {
    "methods": EVERYTHING,
    "decoupling": UNBIASED,
    "terms": EVERYTHING,
    "deep": (f"crops-{DEEP}", "scenes-vfm"),
    "refiner-depth": OF_THE_STUDENT,
    "lambda-sc": OF_THE_STUDENT,
    "theta": UNBIASED,
    "beta": UNBIASED,
    "views": OF_THE_STUDENT,
    "pvlm": ("scenes-s", "scenes-l", "scenes-pvlm", *UNBIASED),
    "lambda": ("crops-scenes-s", "scenes-vfm"),
    "temperature": OF_THE_STUDENT,
    "alpha": ("crops-scenes-s",),
    "blocks": ("crops-scenes-s", "scenes-vfm"),
    "input-size": UNBIASED,
    "scaling": UNBIASED,
    "groups": BIASED,
    "keep": BIASED,
    "teacher-mix": (*BIASED, *UNBIASED),
    "image-cosine": ("crops-scenes-s", "cls-scenes-s"),
    "masks": BIASED,
}
"""The tables beside those of the conditions, and the teachers that each needs."""
PLANS = ("grid-paper", "mask-boxes", "masks")
"""Region plans of the table `masks`, whose columns are in a store of their own: names repeat."""
DEPTHS = (1, 2, 3, 4)
"""Blocks of the Refiners of `refiner-depth`. Other tables have one Refiner, of the default depth."""
UNTRAINED = {
    "methods": [("scenes-s", "qq+scale"), ("scenes-s", "qq")],
    "deep": [(DEEP, "qq+scale"), (DEEP, "qq")],
}
"""Models that are also measured as DeCLIP reads them out, before any training."""
FIRST = (
    *("biased-pvlm-decent-student-rows", "biased-pvlm-weak-student-rows", "biased-pvlm-biased-student-rows"),
    *("biased-pvlm-decent-student-betas", "methods", "terms", "deep", "unbiased-pvlm-decent-student-rows"),
    *("decoupling", "refiner-depth", "lambda-sc", "groups", "keep", "teacher-mix", "image-cosine"),
    "masks",
)
TABLES = tuple(dict.fromkeys((*FIRST, *CONDITIONS, *COLUMNS)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tables", nargs="*", metavar="TABLE")
    parser.add_argument("--out", type=Path, default=Path("runs/tables"))
    parser.add_argument("--list", action="store_true", help="lists the tables")
    parser.add_argument("--markdown", action="store_true", help="prints what is measured so far")
    args = parser.parse_args()
    if args.list:
        print(*TABLES, sep="\n")
        return
    if strays := set(args.tables) - set(TABLES):
        parser.error(f"no such table: {', '.join(sorted(strays))}")
    out, names = args.out.resolve(), args.tables or TABLES
    if args.markdown:
        parts = [conditions_markdown(out), *(markdown(n, out) for n in names if n not in CONDITIONS)]
        print("\n\n".join(filter(None, parts)))
    elif failed := [name for name in names if not run(name, out)]:
        raise SystemExit(f"These tables have runs that failed: {', '.join(failed)}.")


def run(name: str, out: Path) -> bool:
    """Runs one table; whether all its runs succeeded."""
    out.mkdir(parents=True, exist_ok=True)
    spec = spec_of(name, out)
    if name in CONDITIONS:
        pvlm, student, _ = CONDITIONS[name]
        build(out, [PVLMS[pvlm]])
        if student == "biased":
            biased_student(out)
    else:
        if name == "deep":
            deep_student(out)
        for plan in PLANS if name == "masks" else ("grid-paper",):
            build(out, COLUMNS[name], "--regions", plan, store=store_of(name, out))
        if name in ("methods", "terms"):
            refined(out, "refiner")
        for rule in RULES if name == "teacher-mix" else ():
            parts = [word for teacher in COLUMNS[name] for word in ("--teacher-mix", f"{teacher}=0.5")]
            must(out, "mix", "--store", out / "store", *parts, "--rule", rule)
        for depth in DEPTHS if name == "refiner-depth" else ():
            refined(out, f"refiner-{depth}", "--depth", depth)
    command = "scaling" if name == "scaling" else "ablate"
    done = densecli(out, command, spec, "--store", store_of(name, out), "--run", out / name)
    for model, file, words in also_measured(name, out):
        if not file.exists():
            where = ("--data", out / name / "data", "--split", DATASETS["scenes"].test_split)
            must(
                out, "evaluate", *words, *where, "--categories", "scenes", "--batch-size", 50, "--json", file
            )
        print(model, figures_of(json.loads(file.read_text()))["figures"], flush=True)
    return done


def also_measured(name: str, out: Path) -> list[tuple[str, Path, Sequence[object]]]:
    """What a table shows besides its spec: a title, the file of the result, and the options of evaluate."""
    more: list[tuple[str, Path, Sequence[object]]] = [
        (
            f"{model}, read as {mode}",
            out / name / f"{model}-{mode}.json",
            ("--student", model, "--mode", mode),
        )
        for model, mode in UNTRAINED.get(name, ())
    ]
    if name in CONDITIONS and CONDITIONS[name][1] == "biased":
        run = out / "biased-student"
        more.append(("biased student", out / name / "biased-student.json", ("--run", run)))
    return more


def markdown(name: str, out: Path) -> str:
    """What is measured of a table, and what its teachers cost; empty if that is nothing."""
    if not (out / name).is_dir():
        return ""
    spec, rows, results = measured(name, out)
    finished = [result.name for result in results if result.settings and not result.error]
    store = open_store(str(store_of(name, out)))
    costs = teacher_costs(store, [photos_seen(out / name / run) for run in finished])
    tables = [settings_table(rows, headings(rows)), *([cost_table(costs)] if costs else [])]
    return "\n\n".join([f"### {name}: {spec.title}", *(table.markdown().strip() for table in tables)])


def conditions_markdown(out: Path) -> str:
    """What is measured of all conditions, in one table."""
    lines = []
    for pvlm, student in product(PVLMS, STUDENTS):
        names = [f"{pvlm}-pvlm-{student}-student-{grid}" for grid in ("rows", "betas")]
        found = [row for name in names if (out / name).is_dir() for row in measured(name, out)[1]]
        known = {row.title: row for row in found if row.finished}
        for title, row in known.items():
            if title not in PVLMS.values():
                label = "before" if not row.settings else title.removeprefix("decoupling ")
                figures = [row.figures[heading].text() for heading in headings([row])]
                lines.append([pvlm, student, label, "" if not row.settings else str(row.finished), *figures])
    columns = ["P-VLM", "student", "decoupling", "seeds", "Boxes", "Masks-T", "Masks-S", "stuff as thing"]
    return Table(title="", columns=columns, rows=lines).markdown().strip() if lines else ""


def measured(name: str, out: Path) -> tuple[Spec, list[SettingRow], list[RunResult]]:
    """The spec of a table, the rows that show what is measured of it, and the results of the spec's runs."""
    spec = load_spec(spec_of(name, out), make_runner().flags)
    spec = replace(spec, train={**spec.train, "store": open_store(str(store_of(name, out))).root})
    results = recorded(spec, out / name)
    more = [
        RunResult(name=model, **figures_of(json.loads(file.read_text())))
        for model, file, _ in also_measured(name, out)
        if file.exists()
    ]
    return spec, aggregate([*more, *results]), results


def headings(rows: Sequence[SettingRow]) -> list[str]:
    """The figures of some rows but those of top-5."""
    return list(dict.fromkeys(h for row in rows for h in row.figures if "top-5" not in h))


def spec_of(name: str, out: Path) -> Path:
    """The file of a table's spec."""
    if name not in CONDITIONS and name != "deep":
        return shipped()[f"scenes/{name}"]
    spec = out / f"{name}.toml"
    spec.write_text(DEEP_SPEC if name == "deep" else conditions(name, out))
    return spec


def conditions(name: str, out: Path) -> str:
    """The spec of one P-VLM and one student."""
    pvlm, student, rows = CONDITIONS[name]
    named = {"weak": "scenes-s", "decent": "scenes-s-clipself"}.get(student)
    start = f'student = "{named}"' if named else f'init = "{out / "biased-student"}"'
    beside = [each for each in (named, PVLMS[pvlm]) if each]
    return f"""title = "Decoupling: {pvlm} P-VLM, {student} student"
beside = {json.dumps(beside)}

[train]
method = "densevlm"
teacher = "{PVLMS[pvlm]}"
{start}
max-steps = 200
batch-size = 24
lr = 3e-5

[grid]
{rows}
seed = [0, 1, 2]

[evaluate]
batch-size = 50
"""


DEEP_SPEC = f"""title = "CLIPSelf and DeCLIP with a student of ten blocks"
beside = ["{DEEP}"]

[train]
student = "{DEEP}"
max-steps = 200
batch-size = 24
lr = 3e-4
alpha = 0.9

[grid]
method = ["clipself", "declip", "declip-released"]
seed = [0, 1, 2]

[evaluate]
batch-size = 50
"""


def store_of(name: str, out: Path) -> Path:
    """The store of a table."""
    own = {"scaling": f"store-{MANY_SCENES}", "masks": "store-masks"}
    return out / own.get(name, "store")


def build(out: Path, teachers: Sequence[str], *more: object, store: Path | None = None) -> None:
    """Adds the columns of teachers to a store, where they are missing."""
    named = [word for teacher in teachers for word in ("--teacher", teacher)]
    scenes = MANY_SCENES if store == store_of("scaling", out) else SCENES
    size = ("--dataset", "scenes", "--limit", scenes, "--side", POINTS)
    must(out, "build-shards", *size, "--store", store or out / "store", *named, *more)


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


def deep_student(out: Path) -> None:
    """Trains the deep student, unless its weights are there."""
    weights = out / "weights" / f"{DEEP}.safetensors"
    if not weights.exists():
        subprocess.run([sys.executable, PLUGIN, weights], cwd=out, check=True)


def must(out: Path, *words: object) -> None:
    """Runs a command of densecli that has to succeed."""
    if not densecli(out, *words):
        raise SystemExit(1)


def densecli(out: Path, *words: object) -> bool:
    """Runs a command of densecli in the folder OUT, as specs name Refiners there; whether it succeeded."""
    command = [sys.executable, "-m", "densecli", "--plugin", PLUGIN, *words]
    print(*command[5:], flush=True)
    return subprocess.run(list(map(str, command)), cwd=out, check=False).returncode == 0


if __name__ == "__main__":
    main()
