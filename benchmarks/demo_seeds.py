"""Mean and spread of the demo over seeds, as a markdown table.

    python benchmarks/demo_seeds.py --seeds 0 1 2

Runs `densecli demo --seed N` for each seed: other training scenes, another order and other views. The test
scenes and the shipped models stay.
"""

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

FIGURES = {
    "Boxes": "boxes_top1",
    "Masks-T": "masks_thing_top1",
    "Masks-S": "masks_stuff_top1",
    "stuff as thing": "stuff_as_thing",
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    results = []
    for seed in args.seeds:
        file = args.out / f"seed-{seed}.json"
        command = [sys.executable, "-m", "densecli", "demo", "--seed", str(seed), "--json", str(file)]
        subprocess.run(command, check=True)
        results.append(json.loads(file.read_text()))
    print(f"| percent, seeds {' '.join(map(str, args.seeds))} | before | after |\n|---|---|---|")
    for heading, figure in FIGURES.items():
        cells = [_spread([result[when][figure] for result in results]) for when in ("before", "after")]
        print(f"| {heading} | {' | '.join(cells)} |")


def _spread(values: list[float]) -> str:
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


if __name__ == "__main__":
    main()
