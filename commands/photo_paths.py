"""The photos that a command line names: files, folders and patterns."""

from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from typing import NamedTuple

from densecli.core.errors import DenseCLIError
from densecli.core.passed_over import PassedOver, in_words
from densecli.core.pictures import EXTENSIONS
from densecli.core.progress import say
from densecli.core.tables import plain, readable


class PhotoPath(NamedTuple):
    """A photo.

    Attributes:
        name: Its path within the folder that was named, else the name of the file.
        path: Where it is.
    """

    name: str
    path: Path


def photo_paths(given: Sequence[str], flag: str) -> list[PhotoPath]:
    """The photos that were named, and those in the folders that were, each once and sorted by folder.

    What a folder or a pattern holds besides photos is counted on standard error.

    Args:
        given: Photos, folders and patterns such as photos/*.jpg.
        flag: What they were given as, for errors.

    Raises:
        DenseCLIError: Something that was named is not there, or a pattern matches nothing.
    """
    found: dict[Path, PhotoPath] = {}
    for word in given:
        for each in _matches(word, flag):
            found.setdefault(each.path, each)
    return list(found.values())


def _matches(word: str, flag: str) -> list[PhotoPath]:
    path = Path(word)
    if path.is_dir():
        return _in_folder(path)
    if path.exists():
        return [PhotoPath(path.name, path)]
    if not has_magic(word):
        raise DenseCLIError(
            f"There is no photo or folder {plain(readable(word), 240)}.", hint=f"Check {flag}."
        )
    passed = PassedOver()
    found: list[PhotoPath] = []
    for match in map(Path, sorted(glob(word, recursive=True))):
        if match.is_dir():
            # With **, the files of a folder match by themselves.
            found += [] if "**" in word else _in_folder(match)
        elif match.name.lower().endswith(EXTENSIONS):
            found.append(PhotoPath(match.name, match))
        else:
            passed.add("not named as a photo", match.name)
    _tell(word, passed)
    if not found:
        raise DenseCLIError(
            f"No photo matches {plain(readable(word), 240)}.", hint=f"Check {flag}, or name a folder."
        )
    return found


def _in_folder(folder: Path) -> list[PhotoPath]:
    from densecli.pipeline.sources.base import find_photos

    files = find_photos(str(folder), str(folder))
    _tell(str(folder), files.passed)
    return [PhotoPath(name, folder / name) for name in sorted(files.sizes)]


def _tell(where: str, passed: PassedOver) -> None:
    if words := in_words(passed.document()):
        say(f"{plain(readable(where), 240)}: left out are {words}.")
