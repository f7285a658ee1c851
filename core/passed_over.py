"""Files that a listing leaves out: how many, why, and the first of them."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from densecli.core.tables import plain, readable

NAMED = 3
"""Number of files to name for each reason."""


class PassedOver:
    """Files that a listing leaves out, counted by reason."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._first: dict[str, list[str]] = {}

    def add(self, reason: str, name: str) -> None:
        """Counts a file.

        Args:
            reason: Why it is left out, such as "a link to nothing".
            name: Name of the file.
        """
        self._counts[reason] = self._counts.get(reason, 0) + 1
        first = self._first.setdefault(reason, [])
        if len(first) < NAMED:
            first.append(readable(name))

    def update(self, other: "PassedOver", folder: str = "") -> None:
        """Adds the files that another listing left out, with names below `folder`."""
        for reason, count in other._counts.items():
            self._counts[reason] = self._counts.get(reason, 0) + count
            first = self._first.setdefault(reason, [])
            names = other._first[reason][: NAMED - len(first)]
            first += [f"{readable(folder)}/{name}" if folder else name for name in names]

    def document(self) -> dict[str, Any]:
        """Returns JSON values: {reason: {"count": number, "first": names}}."""
        return {
            reason: {"count": count, "first": self._first[reason]} for reason, count in self._counts.items()
        }

    def to_json(self) -> bytes:
        """Returns the JSON text of `document`."""
        return json.dumps(self.document(), sort_keys=True).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "PassedOver":
        """Reads the result of `to_json`. Raises ValueError, KeyError or TypeError for other data."""
        found = cls()
        for reason, facts in json.loads(data).items():
            found._counts[str(reason)] = int(facts["count"])
            found._first[str(reason)] = [str(name) for name in facts["first"]]
        return found


def in_words(document: Mapping[str, Any]) -> str:
    """The reasons of a `PassedOver.document` in one line; empty if nothing was left out."""
    parts = []
    for reason, facts in document.items():
        parts.append(f"{facts['count']} {plain(reason)}{examples(facts['count'], facts['first'])}")
    return "; ".join(parts)


def examples(count: int, names: Sequence[str]) -> str:
    """The first few of `count` names in brackets; empty if there are none."""
    more = ", ..." if count > len(names) else ""
    return f" ({', '.join(map(plain, names))}{more})" if names else ""
