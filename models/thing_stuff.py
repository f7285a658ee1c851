"""Classifies names as things or stuff, by rules that give their reason."""

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from densecli.core.tables import plain
from densecli.models.category_sets import CATEGORY_SETS, Categories

SETS = ("133", "ade150", "171")
"""Published sets that say which names are things; the first one wins where they disagree."""
LONGEST = 3
"""Number of words of the longest name that is searched for in captions."""
PRODUCTS = "a list of products"
"""Source of names of single objects that COCO calls stuff."""
SHOWN = 12
"""Names in a line to the user."""
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
    """Whether a name is a thing, and the list that says so."""

    thing: bool
    source: str


@dataclass(frozen=True)
class Verdict:
    """The classification of a name.

    Attributes:
        name: The name.
        thing: Whether it is a thing.
        count: How often the name was found.
        why: The rule that decided.
        sure: Whether it is a list that says so, and no other list says the opposite.
    """

    name: str
    thing: bool
    count: int
    why: str
    sure: bool = True


def clean(name: str) -> str:
    """Lower case, singular, and without COCO's suffixes: "Wall  Clocks" becomes "wall clock"."""
    words = _SUFFIX.sub("", name.lower().replace("_", " ")).split()
    return " ".join([*words[:-1], *map(singular, words[-1:])])


def singular(word: str) -> str:
    """The singular by English spelling (boats, boxes, berries), with the most common exceptions."""
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
    """Counts the cleaned names of a list, in the order in which they first appear."""
    return Counter(name for name in map(clean, names) if name)


def named_in(captions: Iterable[str], known: Iterable[str]) -> tuple[Counter[str], Counter[str]]:
    """Counts the captions that have each known name, and those that have each other word.

    The longest name at each place counts, in the singular or the plural. Grammar is ignored: "orange" is a
    fruit in every caption.
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
    """Known names: the user's, else those of the products, the published sets and the shipped list."""
    return {**_shipped(), **(_of(own, own.name) if own else {})}


@cache
def _shipped() -> dict[str, Known]:
    names = json.loads((Path(__file__).parent / "data" / "thing_stuff.json").read_text())
    products = names.pop("product")
    found = {
        clean(name): Known(kind == "thing", "thing_stuff.json") for kind in names for name in names[kind]
    }
    for each in reversed(SETS):
        found |= _of(CATEGORY_SETS[each], each)
    # COCO has no boxes of single tables, mirrors and pillows. Whoever lists them has.
    return found | {clean(name): Known(True, PRODUCTS) for name in products}


def _of(categories: Categories, source: str) -> dict[str, Known]:
    """The names of a set, with each of ADE20K's synonyms."""
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
    """Classifies names as things or stuff, by the first of these rules that applies.

    1. The word list has the name. Its list of products comes before the published sets, in which tables,
       mirrors and rugs are stuff.
    2. The word list has its last word: a wooden table is a table.
    3. The names in the word list with the nearest text embeddings, NEIGHBOURS of them, vote.
    4. The name is taken for a thing.

    Args:
        names: Names with their counts.
        known: The word list.
        embed: Computes (N, C) unit embeddings of N names; None without a text tower.
    """
    found = {name: _by_list(name, known) for name in names}
    unknown = [name for name, kind in found.items() if kind is None]
    if unknown and embed:
        listed = list(known)
        near = (embed(unknown) @ embed(listed).T).topk(min(NEIGHBOURS, len(listed))).indices.tolist()
        for name, rows in zip(unknown, near, strict=True):
            nearest = [listed[row] for row in rows]
            things = sum(known[each].thing for each in nearest)
            kinds = ", ".join(f"{each} ({_kind(known[each].thing)})" for each in nearest)
            found[name] = (2 * things > len(nearest), f"nearest in text space: {kinds}")
    verdicts = []
    for name, count in names.items():
        thing, why = found[name] or (True, "no rule knows it: taken for a thing")
        sure = name not in unknown and PRODUCTS not in why
        verdicts.append(Verdict(name, thing, count, why, sure))
    return verdicts


def decide(names: Sequence[str]) -> tuple[list[bool], str]:
    """Whether each name is a thing by the rules without a text tower, and a line to the user that says so."""
    verdicts = classify_thing_stuff(dict.fromkeys(map(clean, names), 1), word_list())
    kind = {verdict.name: verdict for verdict in verdicts}
    found = [kind[clean(name)] for name in names]
    stuff = [name for name, each in zip(names, found, strict=True) if not each.thing]
    unsure = [name for name, each in zip(names, found, strict=True) if not each.sure]
    line = f"{len(names) - len(stuff)} of {len(names)} names are taken for things"
    line += f", and for stuff: {_some(stuff)}." if stuff else "."
    if unsure:
        line += f" Not sure of: {_some(unsure)}."
    line += " To change that, give --all-things, or a file that densecli categories writes."
    return [each.thing for each in found], line


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(plain(name) for name in names[:SHOWN])}{more}"


def _by_list(name: str, known: Mapping[str, Known]) -> tuple[bool, str] | None:
    last = name.rsplit(maxsplit=1)[-1].rsplit("-", maxsplit=1)[-1]
    for each, subject in ((name, "it"), (last, f"its last word, {last},")):
        if each in known:
            return known[each].thing, f"{subject} is {_kind(known[each].thing)} in {known[each].source}"
    return None


def _kind(thing: bool) -> str:
    return "a thing" if thing else "stuff"
