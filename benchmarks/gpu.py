"""Everything about a GPU that the project promises, measured in one short run.

    python benchmarks/gpu.py --minutes 12
    python benchmarks/gpu.py --small --device cpu    # tries the script itself

It needs no network and no data: photos are the generated world's, weights are random, which changes no speed.

- tests: the tests that need a GPU.
- training: cached, live and loader-free steps of four methods at 512 and 1,024 px, compiled and eager; FLOP/s
  as a share of the GPU's peak, also of a bare forward and backward pass; how often a step waits for the GPU,
  and the share of time without a kernel.
- build: photos per second of a build for three teachers in fp32, tf32 and fp16, and the teacher's duty: the
  share of the time in which the GPU runs a kernel.
- decode: photos per second decoded by Pillow in threads and by the GPU; batches of the loader by threads.
- memory: a step's memory as estimated and as it is, and the error of a step that does not fit.

Each section runs in a process of its own and has a share of the minutes; time that one leaves goes to those
after it. A case that fails is named with its error, and the next one begins; what did not fit is named, too.
After every case --out holds all figures as JSON, and beside it a table (.txt) says which goals are met.
"""

import argparse
import importlib.metadata
import json
import math
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent))

from gpu_cases import SECTIONS, Row, Time

from densecli.core.device import pick_device
from densecli.core.tables import table

GOALS: dict[tuple[str, str], Callable[[Row], float]] = {
    ("training", "of the ceiling"): lambda row: 0.97,
    ("training", "MFU"): lambda row: 0.38 if row["side"] == 512 and row["compiled"] else 0,
    ("training", "cached / live"): lambda row: (
        {"densevlm": 2.3, "clipself": 2, "declip": 2}.get(row["method"], 0) if row["compiled"] else 0
    ),
    ("build", "duty"): lambda row: 0.9 if len(os.sched_getaffinity(0)) >= 16 else 0,
}
"""The least that a figure should be, by section and figure; 0 for no goal."""


def main(words: list[str] | None = None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=12)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--small", action="store_true", help="tiny models, in this process")
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(words)
    if args.only:
        run_section(args.sections[0], args, Path(args.only[0]), float(args.only[1]))
        return {}
    end = time.monotonic() + 60 * args.minutes
    report: dict[str, Any] = {"about": about(args), "sections": {}}
    written: list[str] = []

    def write() -> None:
        """Writes all that is known, and prints the lines that are new."""
        args.out.write_text(json.dumps(report, indent=1))
        found = lines(report["sections"])
        for line in found[len(written) :]:
            print(" | ".join(line), flush=True)
            written.append(line[0])
        text = table([["section", "case", "figures"], *found])
        args.out.with_suffix(".txt").write_text(f"{json.dumps(report['about'])}\n{text}\n{goals(found)}\n")

    for number, name in enumerate(args.sections):
        share = SECTIONS[name][1] / sum(SECTIONS[other][1] for other in args.sections[number:])
        started = time.monotonic()
        for rows in section(name, args, share * (end - started)):
            report["sections"][name] = {"seconds": time.monotonic() - started, "rows": rows}
            write()
    print(f"\n{args.out.with_suffix('.txt').read_text()}")
    return report


def about(args: argparse.Namespace) -> Row:
    device = pick_device(args.device)
    packages = ("torch", "torchvision", "timm", "open_clip_torch", "pillow", "numpy")
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "cores": len(os.sched_getaffinity(0)),
        "small": args.small,
        "minutes": args.minutes,
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
    }


def section(name: str, args: argparse.Namespace, seconds: float) -> Iterator[list[Row]]:
    """Yields the rows of a section again whenever there are more; the last ones say how it ended."""
    with TemporaryDirectory() as folder:
        out = Path(folder) / "rows.jsonl"
        out.touch()

        def rows() -> list[Row]:
            # The last line may be half written.
            return [
                json.loads(line) for line in out.read_text().splitlines(keepends=True) if line[-1] == "\n"
            ]

        if args.small:
            run_section(name, args, out, seconds)
            yield rows()
            return
        words = ["--sections", name, "--device", args.device, "--only", str(out), str(seconds)]
        # A case that was begun may end later than its section's time.
        why, end, known = (
            "no time for the case at hand and those after it",
            time.monotonic() + 1.2 * seconds,
            0,
        )
        with (Path(folder) / "errors").open("w+") as errors:
            # A group of its own: what it has started ends with it.
            process = subprocess.Popen(
                [sys.executable, __file__, *words], stderr=errors, start_new_session=True
            )
            try:
                while process.poll() is None and time.monotonic() < end:
                    time.sleep(0.5)
                    if len(found := rows()) > known:
                        known = len(found)
                        yield found
                if process.poll() is not None:
                    errors.seek(0)
                    last = (errors.read().strip().splitlines() or ["no message"])[-1]
                    why = last if process.returncode else ""
            finally:
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
        yield [*rows(), *([{"case": "the rest", "left out": why}] if why else [])]


def run_section(name: str, args: argparse.Namespace, out: Path, seconds: float) -> None:
    """Writes each row as soon as it is known."""
    with out.open("a") as file:
        for row in SECTIONS[name][0](args, Time(seconds)):
            file.write(json.dumps(finite(row)) + "\n")
            file.flush()


def finite(row: Row) -> Row:
    """Without figures that this machine cannot give."""
    return {name: x for name, x in row.items() if not (isinstance(x, float) and not math.isfinite(x))}


def lines(sections: dict[str, Any]) -> list[list[str]]:
    """The table's lines: of each case its figures, with the goals that there are."""
    named = ("side", "compiled", "method", "teacher", "precision", "case")
    found = []
    for name, about in sections.items():
        for row in about["rows"]:
            words = [str(row[key]) for key in named if key in row and key != "compiled"]
            if "compiled" in row:
                words.append("compiled" if row["compiled"] else "eager")
            figures = [figure(name, key, row) for key in row if key not in named]
            found.append([name, " ".join(words) or "-", ", ".join(figures)])
    return found


MET, MISSED = "is met", "is missed"


def figure(section: str, name: str, row: Row) -> str:
    value = row[name]
    if not isinstance(value, float):
        return f"{name} {value}"
    goal = GOALS[section, name](row) if (section, name) in GOALS else 0
    return f"{name} {value:.3g}" + (f" (goal {goal:g} {MET if value >= goal else MISSED})" if goal else "")


def goals(found: list[list[str]]) -> str:
    """How many goals of all lines are met."""
    met, missed = (sum(line[-1].count(word) for line in found) for word in (MET, MISSED))
    return f"Goals met: {met} of {met + missed}."


if __name__ == "__main__":
    main()
