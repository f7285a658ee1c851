"""Mean and spread of the demo over seeds, as a markdown table.

    python benchmarks/demo_seeds.py --seeds 0 1 2 3

Runs `densecli demo --seed N` for each seed: other training scenes, another order and other views. The test
scenes and the shipped models stay. Fails where a claim of the page does not hold for some seed: every figure
of `after` is better than `before`, and its Masks-S at least 5 points above `undecoupled`.
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
MODELS = {
    "P-VLM": "teacher",
    "student before": "before",
    "without decoupling": "undecoupled",
    "decoupled": "after",
}
LOWER = "stuff_as_thing"
"""The figure of which less is better."""
LEAST_GAIN = 5.0
"""Points of Masks-S by which decoupling must be better."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("runs/demo"))
    args = parser.parse_args()
    results = []
    for seed in args.seeds:
        file = args.out / f"seed-{seed}.json"
        command = [sys.executable, "-m", "densecli", "demo", "--seed", str(seed), "--json", str(file)]
        subprocess.run(command, check=True)
        results.append(json.loads(file.read_text()))
    print(f"| percent, seeds {' '.join(map(str, args.seeds))} | {' | '.join(FIGURES)} |")
    print(f"|---|{'---|' * len(FIGURES)}")
    for heading, model in MODELS.items():
        cells = [_spread([result[model][figure] for result in results]) for figure in FIGURES.values()]
        print(f"| {heading} | {' | '.join(cells)} |")
    failed = [seed for seed, result in zip(args.seeds, results, strict=True) if not holds(result)]
    if failed:
        raise SystemExit(f"The page's claims do not hold for the seeds {failed}.")


def holds(result: dict[str, dict[str, float]]) -> bool:
    """Whether everything is better than before, and decoupling made stuff better."""
    before, undecoupled, after = (result[name] for name in ("before", "undecoupled", "after"))
    better = all(after[figure] > before[figure] for figure in FIGURES.values() if figure != LOWER)
    gain = after["masks_stuff_top1"] - undecoupled["masks_stuff_top1"]
    return better and after[LOWER] < before[LOWER] and gain >= LEAST_GAIN


def _spread(values: list[float]) -> str:
    low, high = f"{min(values):.1f}", f"{max(values):.1f}"
    return low if low == high else f"{statistics.mean(values):.1f} ({low} to {high})"


if __name__ == "__main__":
    main()
