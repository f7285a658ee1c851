"""python -m tests.fuzz: tries inputs for as long as one likes."""

import argparse
import faulthandler
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path

from .frame import FellShort, ends, targets, tries


def main() -> int:
    """Returns 1 where an input fell short."""
    known = targets()
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="for all targets together (60)")
    parser.add_argument("--only", action="append", choices=known, help="a target; may be given several times")
    parser.add_argument("--seed", type=int, help="tries this one input")
    parser.add_argument(
        "--first", type=int, default=10**6, help="the first seed (make test has those from 0)"
    )
    options = parser.parse_args()
    chosen = [known[name] for name in options.only or known]
    failures = 0
    with tempfile.TemporaryDirectory(prefix="densecli-fuzz-") as folder:
        for target in chosen:
            # What hangs outside of Python's code is shown, and ends everything.
            seconds = options.seconds / len(chosen)
            faulthandler.dump_traceback_later(seconds + 3 * target.seconds + 60, exit=True)
            start = time.monotonic()
            seeds = [options.seed] if options.seed is not None else _until(start + seconds, options.first)
            results = Counter[str]()
            for _, end in tries(target, iter(seeds), Path(folder)):
                results["fell short" if isinstance(end, FellShort) else end] += 1
                if isinstance(end, FellShort):
                    print(end, file=sys.stderr, flush=True)
            failures += results["fell short"]
            taken = time.monotonic() - start
            short = f"{results['fell short']} fell short"
            print(
                f"{target.name}: {results.total()} inputs in {taken:.0f} s, {short} ({ends(results)})",
                flush=True,
            )
    return 1 if failures else 0


def _until(end: float, first: int) -> Iterator[int]:
    for seed in count(first):
        if time.monotonic() > end:
            return
        yield seed


if __name__ == "__main__":
    sys.exit(main())
