"""Names of things and stuff: cleaned, counted, and told apart by rules that say why."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from densecli.models.categories import Categories, load_categories

SETS = ("133", "ade150", "171")
"""The published sets whose flags are believed: of two that disagree the first."""
LONGEST = 3
"""Words of the longest name that is looked for in a caption."""
NEIGHBOURS = 5
_SUFFIX = re.compile(r"-(stuff|merged|other)\b")
_WORD = re.compile(r"[a-z]+(?:[-'][a-z]+)*")
_SINGULAR = {
    **{"people": "person", "men": "man", "women": "woman", "children": "child", "feet": "foot"},
    **{"mice": "mouse", "geese": "goose", "teeth": "tooth", "oxen": "ox", "leaves": "leaf"},
    **{"knives": "knife", "wolves": "wolf", "shelves": "shelf", "loaves": "loaf", "scarves": "scarf"},
    **{"buses": "bus", "movies": "movie", "cookies": "cookie", "pies": "pie", "ties": "tie", "skies": "sky"},
}
_AS_THEY_ARE = frozenset(
    {"glasses", "sunglasses", "scissors", "stairs", "clothes", "pants", "jeans", "shorts", "skis", "tongs"}
    | {"woods", "series", "species", "gas", "lens", "tennis", "canvas"}
)


class Known(NamedTuple):
    """What a list says of a name, and which list."""

    thing: bool
    source: str


@dataclass(frozen=True)
class Verdict:
    """A name of a category set to be; count: how often it was named."""

    name: str
    thing: bool
    count: int
    why: str


def clean(name: str) -> str:
    """A name in lower case and in the singular, without what COCO appends: "Wall  Clocks" -> "wall clock"."""
    words = _SUFFIX.sub("", name.lower().replace("_", " ")).split()
    return " ".join([*words[:-1], *map(singular, words[-1:])])


def singular(word: str) -> str:
    """By English spelling alone: boats, boxes, berries, and the most common exceptions."""
    if word in _SINGULAR or word in _AS_THEY_ARE:
        return _SINGULAR.get(word, word)
    if word.endswith("ies") and len(word) > 4:
        return f"{word[:-3]}y"
    if re.search(r"(ss|sh|ch|x|zz)es$", word):
        return word[:-2]
    if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3:
        return word[:-1]
    return word


def counted(names: Iterable[str]) -> Counter[str]:
    """The cleaned names of a list with how often they are there, in the order in which they come."""
    return Counter(name for name in map(clean, names) if name)


def named_in(captions: Iterable[str], known: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """How many captions name each of the `known` names, and how many hold each other word.

    The longest name at each place counts, its last word in the singular or the plural. There is no grammar
    in this: "orange" is a fruit in every caption.
    """
    known = set(known)
    names, others = Counter[str](), Counter[str]()
    for caption in captions:
        words = _WORD.findall(caption.lower())
        here: set[str] = set()
        rest: set[str] = set()
        at = 0
        while at < len(words):
            for length in range(min(LONGEST, len(words) - at), 0, -1):
                name = " ".join([*words[at : at + length - 1], singular(words[at + length - 1])])
                if name in known:
                    here.add(name)
                    at += length
                    break
            else:
                rest.add(words[at])
                at += 1
        names.update(sorted(here))
        others.update(sorted(rest))
    return names, others


def word_list(own: Categories | None = None) -> dict[str, Known]:
    """The names whose kind is known: by the user's own list, else by the sets', else by the shipped one."""
    return {**_shipped(), **(_of(own, own.name) if own else {})}


@cache
def _shipped() -> dict[str, Known]:
    names = json.loads((Path(__file__).parent / "data" / "thing_stuff.json").read_text())
    found = {
        clean(name): Known(kind == "thing", "thing_stuff.json") for kind in names for name in names[kind]
    }
    for each in reversed(SETS):
        found |= _of(load_categories(each), each)
    return found


def _of(categories: Categories, source: str) -> dict[str, Known]:
    """Each name of a set, and each of ADE's synonyms."""
    flags = categories.thing_flags().tolist()
    return {
        clean(synonym): Known(thing, source)
        for name, thing in zip(categories.names, flags, strict=True)
        for synonym in name.split(",")
    }


def classify_thing_stuff(
    names: Mapping[str, int],
    known: Mapping[str, Known],
    embed: Callable[[Sequence[str]], Tensor] | None = None,
) -> list[Verdict]:
    """Thing or stuff of every name, by the first rule that knows it.

    1. The word list has the name. 2. It has its last word: a wooden table is a table. 3. Of the NEIGHBOURS
    names of the list whose text embeddings are nearest, most are of one kind; embed: names -> (N, C) unit
    rows, None where there is no text tower. 4. It is taken for a thing, and says so.
    """
    found = {name: _by_list(name, known) for name in names}
    unknown = [name for name, said in found.items() if said is None]
    if unknown and embed:
        listed = list(known)
        near = (embed(unknown) @ embed(listed).T).topk(min(NEIGHBOURS, len(listed))).indices.tolist()
        for name, rows in zip(unknown, near, strict=True):
            nearest = [listed[row] for row in rows]
            things = sum(known[each].thing for each in nearest)
            said = ", ".join(f"{each} ({_kind(known[each].thing)})" for each in nearest)
            found[name] = (2 * things > len(nearest), f"nearest in text space: {said}")
    verdicts = []
    for name, count in names.items():
        thing, why = found[name] or (True, "no rule knows it: taken for a thing")
        verdicts.append(Verdict(name, thing, count, why))
    return verdicts


def _by_list(name: str, known: Mapping[str, Known]) -> tuple[bool, str] | None:
    last = name.rsplit(maxsplit=1)[-1].rsplit("-", maxsplit=1)[-1]
    for each, said in ((name, "it"), (last, f"its last word, {last},")):
        if each in known:
            return known[each].thing, f"{said} is {_kind(known[each].thing)} in {known[each].source}"
    return None


def _kind(thing: bool) -> str:
    return "a thing" if thing else "stuff"
