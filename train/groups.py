"""Groups of categories finer than things and stuff, and how much the categories of one count for another.

DenseVLM compares a region with the categories of its own kind, or with all. Here kinds may be any groups: the
weight of group h for the regions of group g is a matrix. The four variants of decoupling and beta are special
cases with two groups, things and stuff.
"""

import csv
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError
from densecli.core.registry import suggestion
from densecli.core.tables import csv_text, plain

CLUSTERS = "cluster:"
"""Begins the choice of groups by clusters of text embeddings: cluster:K."""
OTHERS = ("other things", "other stuff")
"""Groups of the categories that a file does not name."""
SHOWN = 5
"""Categories of a group in a line to the user."""
_HINT = (
    "Write [groups] with lines such as animals = ['dog', 'cat'], and [weights.animals] with lines such as "
    "vehicles = 0.5; or a csv or json with name and group of each category."
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """A division of D categories into G groups, each of things alone or of stuff alone.

    Attributes:
        names: (G,).
        of_class: (D,) int64, the group of each category.
        given: (G, G) float64, the weight of each group (column) for the regions of each (row); NaN where none
            is given.
    """

    names: tuple[str, ...]
    of_class: np.ndarray
    given: np.ndarray

    def told(self, categories: Sequence[str]) -> str:
        """Says which groups there are, and some of the categories of each.

        Args:
            categories: The D names.
        """
        of = {
            name: [categories[i] for i in np.flatnonzero(self.of_class == place).tolist()]
            for place, name in enumerate(self.names)
        }
        parts = [f"{plain(name)} ({_some(inside)})" for name, inside in of.items() if inside]
        return f"{len(parts)} groups of categories: {'; '.join(parts)}."

    def class_weights(self, thing: Tensor, sides: Tensor, within_side: float) -> Tensor:
        """The weight of each category for the regions of each.

        Args:
            thing: (D,) bool, which categories are things.
            sides: (2, 2) weights of things and of stuff (columns) for thing and for stuff regions (rows), as
                decoupling or beta has them. They hold between things and stuff where none is given.
            within_side: Weight of the other groups of the same side, where none is given.

        Returns:
            (D, D) float32; rows are the most probable categories of regions. 1 within a group.
        """
        of, side = torch.from_numpy(self.of_class).to(thing.device), (~thing).long()
        same_side = side[:, None] == side[None, :]
        weights = sides.float()[side][:, side]
        weights = weights.masked_fill(same_side, within_side)
        given = torch.from_numpy(self.given).float().to(thing.device)[of][:, of]
        weights = torch.where(given.isnan(), weights, given)
        return weights.masked_fill(of[:, None] == of[None, :], 1.0)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(plain(name) for name in names[:SHOWN]) + more


def with_tails(weights: Tensor, thing: Tensor) -> Tensor:
    """Adds the tail of things and the tail of stuff: each stands for the mean of its side's categories.

    Args:
        weights: (D, D).
        thing: (D,) bool.

    Returns:
        (D + 2, D + 2).
    """
    sides = torch.stack([thing, ~thing]).to(weights)
    means = sides / sides.sum(dim=1, keepdim=True).clamp(min=1)
    rows = torch.cat([weights, means @ weights])
    return torch.cat([rows, rows @ means.T], dim=1)


def find_groups(spec: str, names: Sequence[str], thing: Tensor, text: Tensor) -> Groups:
    """Finds the groups of categories.

    Args:
        spec: A .toml, .csv or .json file, or cluster:K.
        names: The D categories.
        thing: (D,) bool, which are things.
        text: (D, C) their text embeddings, unit norm, for clusters.

    Raises:
        DenseCLIError: The file cannot be read, has no groups, names an unknown category or group, has a
            category twice, a group of things and stuff, or a weight that cannot be; or K is not possible.
    """
    sides = thing.cpu().numpy()
    if spec.startswith(CLUSTERS):
        count = spec.removeprefix(CLUSTERS)
        if not count.isdecimal() or not 2 <= int(count) <= len(names):
            raise DenseCLIError(
                f"{spec!r} is no number of clusters.", hint=f"Write cluster:K with K from 2 to {len(names)}."
            )
        return clusters(text.float().cpu(), sides, int(count))
    path = Path(spec)
    try:
        content = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DenseCLIError(
            f"The file of groups {path} cannot be read: {error.strerror}.", hint="Check the path."
        ) from None
    except UnicodeDecodeError:
        raise DenseCLIError(f"The file of groups {path} is not UTF-8 text.", hint=_HINT) from None
    try:
        members, weights = _parsed(path.suffix, content)
    except (ValueError, csv.Error, RecursionError) as error:
        raise DenseCLIError(f"The file of groups {path} cannot be read ({error}).", hint=_HINT) from None
    return _checked(path, members, weights, names, sides)


def _parsed(suffix: str, content: str) -> tuple[dict[str, list[str]], dict[str, dict[str, float]]]:
    if suffix == ".toml":
        document = tomllib.loads(content)
        if strays := document.keys() - {"groups", "weights"}:
            raise ValueError(f"[{min(strays)}] is neither [groups] nor [weights]")
        groups, weights = document.get("groups", {}), document.get("weights", {})
        check(groups, dict[str, list[str]], "groups")
        check(weights, dict[str, dict[str, float]], "weights")
        return groups, weights
    if suffix not in (".csv", ".json"):
        raise ValueError("its name ends in none of .toml, .csv and .json")
    if suffix == ".json":
        rows = parse(content.encode())
        check(rows, list[dict[str, Any]])
    else:
        reader = csv.DictReader(content.splitlines(), strict=True)
        rows = list(reader)
        if lacking := {"name", "group"} - {*(reader.fieldnames or ())}:
            raise ValueError(f"it has no column {min(lacking)}")
    members: dict[str, list[str]] = {}
    for number, row in enumerate(rows, start=1):
        name, group = (row.get(key) or "" for key in ("name", "group"))
        if not (isinstance(name, str) and isinstance(group, str) and name.strip()):
            raise ValueError(f"row {number} has no name, or a name or group that is no text")
        if group.strip():
            members.setdefault(group.strip(), []).append(csv_text(name.strip()))
    return members, {}


def _checked(
    path: Path,
    members: Mapping[str, Sequence[str]],
    weights: Mapping[str, Mapping[str, float]],
    names: Sequence[str],
    sides: np.ndarray,
) -> Groups:
    def refuse(what: str) -> DenseCLIError:
        return DenseCLIError(f"{path} {what}.", hint=_HINT)

    # A published set has three names twice.
    places: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        places.setdefault(name, []).append(i)
    if not any(members.values()):
        raise refuse("puts no category into a group")
    groups = [*members, *(other for other in OTHERS if other not in members)]
    place = {group: i for i, group in enumerate(groups)}
    of_class = np.where(sides, place[OTHERS[0]], place[OTHERS[1]]).astype(np.int64)
    seen: dict[str, str] = {}
    for group, inside in members.items():
        if unknown := [name for name in inside if name not in places]:
            raise DenseCLIError(
                f"{path} names {unknown[0]!r}, which is none of the labels' categories.",
                hint=suggestion(unknown[0], places),
            )
        for name in inside:
            if name in seen:
                raise refuse(f"has {name!r} in {seen[name]!r} and in {group!r}")
            seen[name] = group
        of_class[[i for name in inside for i in places[name]]] = place[group]
    for group in groups:
        if len({*sides[of_class == place[group]].tolist()}) > 1:
            raise refuse(f"has things and stuff in the group {group!r}")
    given = np.full((len(groups), len(groups)), np.nan)
    for group, row in weights.items():
        for other, weight in row.items():
            if strays := {group, other} - place.keys():
                raise refuse(f"has a weight for {min(strays)!r}, which is no group")
            if not 0 <= weight <= 1:
                raise refuse(f"has the weight {weight:g} of {other!r} for {group!r}, outside of 0 to 1")
            if group == other and weight != 1:
                raise refuse(f"has the weight {weight:g} of {group!r} for itself, which is always 1")
            given[place[group], place[other]] = weight
    return Groups(names=tuple(groups), of_class=of_class, given=given)


def clusters(text: Tensor, sides: np.ndarray, count: int) -> Groups:
    """Groups by spherical k-means of text embeddings, of things and of stuff apart.

    Args:
        text: (D, C), unit norm.
        sides: (D,) bool, which categories are things.
        count: Number of groups. Things and stuff share them in proportion, at least one each.

    Returns:
        The groups, named `things 1`, `things 2`, ..., `stuff 1`, ...
    """
    of_class, names = np.zeros(len(text), np.int64), list[str]()
    parts = [(label, np.flatnonzero(side)) for label, side in (("things", sides), ("stuff", ~sides))]
    parts = [(label, rows) for label, rows in parts if len(rows)]
    left = count
    for position, (label, rows) in enumerate(parts):
        after = len(parts) - position - 1
        share = max(1, round(count * len(rows) / len(text))) if after else left
        own = min(share, len(rows), left - after)
        left -= own
        of_class[rows] = len(names) + _k_means(text[rows], own)
        names += [f"{label} {i + 1}" for i in range(own)]
    return Groups(names=tuple(names), of_class=of_class, given=np.full((len(names),) * 2, np.nan))


def _k_means(x: Tensor, count: int, rounds: int = 100) -> np.ndarray:
    """(N, C) unit rows -> (N,) clusters 0 to count - 1, none empty; the same for the same rows."""
    # The next centre is the row that is farthest from all centres so far; the first, from the mean.
    chosen = [int((x @ x.mean(dim=0)).argmin())]
    while len(chosen) < count:
        chosen.append(int((x @ x[chosen].T).amax(dim=1).argmin()))
    centres = x[chosen]
    nearest = (x @ centres.T).argmax(dim=1)
    for _ in range(rounds):
        sums = torch.zeros_like(centres).index_add(0, nearest, x)
        empty = torch.bincount(nearest, minlength=count) == 0
        centres = torch.where(empty[:, None], centres, F.normalize(sums, dim=1))
        again = (x @ centres.T).argmax(dim=1)
        if torch.equal(again, nearest):
            break
        nearest = again
    found: np.ndarray = np.unique(nearest.numpy(), return_inverse=True)[1]
    return found
