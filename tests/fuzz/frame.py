"""The frame: targets, and what holds for every input of every target."""

import random
import shutil
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from densecli.core.errors import DenseCLIError
from densecli.pipeline.sources import Unreadable

from .watch import TooSlow, Watch, forget_peak, memory_bytes, peak_bytes, watching


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of input.

    Attributes:
        name: On the command line.
        try_one: Makes an input in the empty folder that it is given and hands it to densecli. It may check
            the result with assert. Beside the folder lies `outside`, with a secret.txt that no input may
            read: odd inputs should try.
        quick: Inputs that `make test` tries, in well under a second or two.
        seconds: That one input may take.
        megabytes: That one input may add to the memory of the process.
        hosts: That it may connect to.
    """

    name: str
    try_one: Callable[[random.Random, Path], None]
    quick: int = 100
    seconds: float = 20.0
    megabytes: int = 500
    hosts: frozenset[str] = frozenset()


class FellShort(AssertionError):
    """An input that did not end as it should."""


def targets() -> dict[str, Target]:
    """All targets by name."""
    found: dict[str, Target] = {}
    for module in iter_modules([str(Path(__file__).parent)]):
        if module.name not in ("__main__", "frame", "watch", "inputs") and not module.name.startswith(
            "test_"
        ):
            each = import_module(f".{module.name}", __package__)
            for target in getattr(each, "TARGETS", None) or (each.TARGET,):
                assert target.name not in found, target.name
                found[target.name] = target
    return dict(sorted(found.items()))


def try_seed(target: Target, seed: int, folder: Path) -> str:
    """Tries one input.

    Args:
        target: Its kind.
        seed: Of the input.
        folder: Empty, for everything that is written; removed afterwards.

    Returns:
        How it ended: used, refused or passed over.

    Raises:
        FellShort: It ended in another way.
    """
    # The name keeps the paths of two inputs apart: nothing of one may serve the other.
    own, outside = folder / f"{target.name}-{seed}", folder / "outside"
    for each in (own, outside):
        each.mkdir(parents=True)
    (outside / "secret.txt").write_text("secret")
    watch = Watch(own, outside, target.hosts)
    here = f"{target.name}, seed {seed}"
    forget_peak()
    before = memory_bytes()
    try:
        with watching(watch, target.seconds):
            target.try_one(random.Random(f"{target.name} {seed}"), own)
        ended = "used"
    except DenseCLIError as error:
        ended = "refused"
        _check_sentence(here, f"{error} {error.hint}")
    except Unreadable as error:
        ended = f"passed over: {error}"
    except TooSlow:
        raise FellShort(f"{here}: took more than {target.seconds:g} seconds") from None
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        raise FellShort(f"{here}: {''.join(traceback.format_exception(error))}") from None
    finally:
        shutil.rmtree(own, ignore_errors=True)
        shutil.rmtree(outside)
    taken = (peak_bytes() - before) / 1e6
    if taken > target.megabytes:
        raise FellShort(f"{here}: took {taken:.0f} MB")
    if watch.wrongs:
        raise FellShort(f"{here}: {'; '.join(watch.wrongs[:5])}")
    return ended


def tries(target: Target, seeds: Iterator[int], folder: Path) -> Iterator[tuple[int, str | FellShort]]:
    """Tries the input of each seed: how it ended, or how it fell short."""
    for seed in seeds:
        try:
            yield seed, try_seed(target, seed, folder)
        except FellShort as error:
            yield seed, error


def ends(results: Counter[str]) -> str:
    """Counts in words."""
    return ", ".join(f"{count} {end}" for end, count in results.most_common())


def _check_sentence(here: str, text: str) -> None:
    # A DenseCLIError is one printable line of bounded length by itself.
    if not text.strip() or "Traceback" in text:
        raise FellShort(f"{here}: no sentence: {text!r}")
