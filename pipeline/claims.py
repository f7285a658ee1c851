"""Claims: several builds of one store share its shards, with no service between them but the store itself.

A build keeps one file in the store, which says what it has taken. To take shards it writes the file, then
reads those of the others: of two builds that take the same shard at the same time, at least the one that
wrote last sees the other's file. Whoever sees another drops the shard. So no lock is needed, which object
stores do not have.

No clock is compared with another machine's. The file holds a counter that its build advances every few
seconds. A build whose counter has not moved for a minute, by the reader's own clock, is dead, and what it had
taken is free. On the same machine a dead process is seen at once.
"""

import base64
import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from densecli.core import fs
from densecli.core.documents import check, parse
from densecli.core.errors import DenseCLIError, Unreachable
from densecli.core.tables import plain
from densecli.shards.keys import canonical_json

SUFFIX = f".build{fs.TEMPORARY[1]}"
"""Claims lie beside store.json; `lint` and `gc` take what a killed build leaves for a temporary file."""
BEAT_SECONDS = 10.0
"""Seconds between two signs of life of a build."""
EXPIRY_SECONDS = 60.0
"""A build without a sign of life for so long is dead."""
WAIT_SECONDS = 2.0
"""Seconds between two looks at what other builds have finished, where there is nothing else to do."""
MAX_BYTES = 4_000_000
"""Size of the largest claim that is read: a bit for each shard, in base 64, and the keys of the columns."""


class ClaimDocument(TypedDict):
    """The file of a build.

    Attributes:
        process: See `_this_process`.
        name: What people call the build: its process and machine.
        beat: Advanced with every sign of life.
        columns: Keys of the columns that it builds.
        taken: A bit for each shard of the store, in base 64: what it builds or has built.
    """

    process: str
    name: str
    beat: int
    columns: list[str]
    taken: str


@dataclass
class _Other:
    """Another build as it was last seen, and when its counter was seen to move."""

    beat: int
    moved: float
    taken: np.ndarray


class Claims:
    """What this build has taken, and what others have.

    Attributes:
        others: Names of the other builds of these columns that were alive at the last look.
    """

    def __init__(
        self,
        root: str,
        columns: Collection[str],
        shards: int,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Takes nothing yet, and writes nothing.

        Args:
            root: Folder or address of the store.
            columns: Keys of the columns to build. Only builds of all of them, or of more, are in the way.
            shards: Number of shards of the store.
            clock: Seconds since any time.
        """
        self.others: list[str] = []
        self._root = root
        self._file = f"{fs.TEMPORARY[0]}{uuid.uuid4().hex}{SUFFIX}"
        self._columns = sorted(columns)
        self._taken = np.zeros(shards, bool)
        self._beat = 0
        self._clock = clock
        self._last_look = self._last_beat = clock()
        self._now = 0.0
        self._seen: dict[str, _Other] = {}
        self._gone = False

    def close(self) -> None:
        """Gives up everything that was taken."""
        # Others find out by themselves, a minute later, if the store is out of reach.
        with suppress(DenseCLIError, OSError):
            if self._beat:
                fs.remove(fs.join(self._root, self._file))

    def take(self, shards: np.ndarray) -> np.ndarray:
        """Takes shards, and returns those that no other build has taken at the same time.

        Args:
            shards: Numbers of shards.
        """
        self._taken[shards] = True
        self._write()
        clash = self._read()[shards]
        if clash.any():
            self._taken[shards[clash]] = False
            self._write()
        kept: np.ndarray = shards[~clash]
        return kept

    def of_others(self) -> np.ndarray:
        """What other builds of these columns have taken that are alive: a bool for each shard."""
        return self._read()

    @property
    def alone(self) -> bool:
        """Whether no other build of this store was alive at the last look, of whatever columns."""
        return not self._seen

    def gone(self) -> bool:
        """Whether another build has ended, or died, since the last call."""
        gone, self._gone = self._gone, False
        return gone

    def beat(self) -> None:
        """Gives a sign of life, if it is time for one. To be called several times in `EXPIRY_SECONDS`."""
        if self._beat and self._clock() - self._last_beat >= BEAT_SECONDS:
            # A store that is out of reach for a moment must not end the build.
            with suppress(Unreachable):
                self._write()
                self._read()

    def _write(self) -> None:
        self._beat += 1
        self._last_beat = self._clock()
        document: ClaimDocument = {
            "process": _this_process(),
            "name": f"process {os.getpid()} on {socket.gethostname()}",
            "beat": self._beat,
            "columns": self._columns,
            "taken": base64.b64encode(np.packbits(self._taken).tobytes()).decode(),
        }
        fs.write_atomic(fs.join(self._root, self._file), canonical_json(document))

    def _read(self) -> np.ndarray:
        """Looks at the other builds, and removes the files of dead ones."""
        look = self._clock()
        # Time in which this process was suspended is no time in which others were silent.
        self._now += min(look - self._last_look, 2 * BEAT_SECONDS)
        self._last_look = look
        taken = np.zeros(len(self._taken), bool)
        before, self._seen, self.others = self._seen, {}, []
        for file in fs.files(self._root):
            if not file.endswith(SUFFIX) or file == self._file or not (claim := self._claim(file)):
                continue
            other = before.get(file)
            if other is None or other.beat != claim["beat"]:
                other = _Other(claim["beat"], self._now, self._bits(claim["taken"]))
            if self._now - other.moved >= EXPIRY_SECONDS or _is_dead(claim["process"]):
                with suppress(DenseCLIError, OSError):
                    fs.remove(fs.join(self._root, file))
                continue
            self._seen[file] = other
            if set(self._columns) <= set(claim["columns"]):
                self.others.append(claim["name"])
                taken |= other.taken
        self._gone |= bool(before.keys() - self._seen.keys())
        return taken

    def _claim(self, file: str) -> ClaimDocument | None:
        """The claim in a file; None if it is gone or is no claim, which then claims nothing."""
        try:
            document = parse(fs.read_range(fs.join(self._root, file), 0, MAX_BYTES))
            check(document, ClaimDocument)
        except (FileNotFoundError, ValueError):
            return None
        claim: ClaimDocument = document
        return claim

    def _bits(self, text: str) -> np.ndarray:
        """The bits in the text of a claim; a damaged one has taken nothing."""
        try:
            packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
        except ValueError:
            packed = np.zeros(0, np.uint8)
        bits = np.zeros(len(self._taken), bool)
        unpacked = np.unpackbits(packed)[: len(bits)].astype(bool)
        bits[: len(unpacked)] = unpacked
        return bits


def shared(
    claims: Claims,
    todo: Sequence[int],
    missing: Callable[[], Collection[int]],
    *,
    slots: int,
    made: Callable[[list[int]], None] = lambda shards: None,
    say: Callable[[str], None] = lambda line: None,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[int | None]:
    """Yields the shards that this build is to make, and ends when every shard of `todo` is made by somebody.

    They are taken in runs of neighbours, as many as this build makes in about `BEAT_SECONDS`, and fewer
    towards the end. A build that finds another one at work begins somewhere else in the list. What others
    have taken is looked at again until they have made it, or died.

    Args:
        claims: The claims on the store.
        todo: Numbers of the shards that were missing when the build began, in order.
        missing: Lists the shards that are missing now.
        slots: Number of shards that this build works on at the same time.
        made: Called with the numbers of shards that other builds have made.
        say: Prints a progress line.
        clock: Seconds since any time.

    Yields:
        The number of a shard, or None if there is none to be had at the moment.
    """
    left = np.array(todo, np.int64)

    def still_missing() -> np.ndarray:
        there = ~np.isin(left, list(missing()))
        if there.any():
            made(left[there].tolist())
        rest: np.ndarray = left[~there]
        return rest

    claims.of_others()
    # A build that ended while the workers of this one were started has left no claim.
    left = still_missing()
    if len(left) and not claims.alone:
        left = np.roll(left, -random.randrange(len(left)))
    size, next_look, told = slots, clock(), ""

    while len(left):
        if clock() < next_look:
            yield None
            continue
        others = claims.of_others()[left]
        if claims.gone():
            # It has told nobody what it made last.
            left = still_missing()
            continue
        if others.all():
            began = clock()
            left = still_missing()
            # A long store takes long to list.
            next_look = clock() + max(WAIT_SECONDS, 10 * (clock() - began))
            line = f"Waiting for {len(left)} shards of {plain(', '.join(claims.others), 200)}."
            if len(left) and line != told:
                told = line
                say(line)
            continue
        if claims.others:
            # The fewer are left, the fewer at a time, so that all builds end together.
            size = min(size, max(1, len(left) // (2 * len(claims.others) + 2)))
        block = claims.take(left[~others][:size])
        left = left[~np.isin(left, block)]
        if not len(block):
            # The other build dropped them too, and must not try again at the same time.
            next_look = clock() + random.random()
            continue
        began = clock()
        yield from block.tolist()
        rate = len(block) / max(clock() - began, 1e-9)
        size = max(slots, min(2 * size, int(rate * BEAT_SECONDS)))


def _this_process() -> str:
    """What tells this process from all that ever ran on this machine; empty where Linux does not say."""
    return _process(os.getpid())


def _process(pid: int) -> str:
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        # A container counts its own processes.
        namespace = os.readlink("/proc/self/ns/pid")
        # After the name, which may hold spaces and brackets; the 22nd field of all.
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        started = fields[18]
    except (FileNotFoundError, ProcessLookupError):
        return ""
    if state == "Z":  # Dead, and nobody has asked how it ended.
        return ""
    return f"{boot} {namespace} {pid} {started}"


def _is_dead(process: str) -> bool:
    """Whether a process of this machine has ended; False for one elsewhere."""
    try:
        boot, namespace, pid, _ = process.split(" ")
        here = _this_process().split(" ")
        return here[:2] == [boot, namespace] and _process(int(pid)) != process
    except ValueError:
        return False
