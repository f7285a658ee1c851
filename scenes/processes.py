"""Processes that work side by side, and whose lines are printed as if they worked one after another."""

import codecs
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from typing import Any, TypeVar

import click

from densecli.core.errors import DenseCLIError
from densecli.core.progress import say

T = TypeVar("T")
GRACE = 10.0
"""Seconds that a process has to end, say a training after the step at hand, before it is killed."""


class Processes:
    """Processes that run tasks side by side. At the end of the block they end, whatever they do.

    Args:
        count: Number of processes, which share the cores.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> "Processes":
        threads = max(1, len(os.sched_getaffinity(0)) // self._count)
        self._workers = [_Worker(threads) for _ in range(self._count)]
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.end()

    def run(self, tasks: Sequence[Callable[[], T]], headings: Sequence[str] = ()) -> list[T]:
        """Runs one task in each process.

        Args:
            tasks: Functions of modules, or partial ones, as many as there are processes.
            headings: What to print before the lines of each task. All goes to standard error.

        Returns:
            What the tasks return.

        Raises:
            Exception: That of the first task that fails.
            DenseCLIError: A process was killed.
        """
        for worker, task in zip(self._workers, tasks, strict=True):
            worker.task.send(task)
        results: dict[int, T] = {}
        printed = _InTurn(headings or [""] * len(tasks))
        while len(results) < len(tasks):
            working = {n: worker for n, worker in enumerate(self._workers) if n not in results}
            ready = wait([each for worker in working.values() for each in (worker.output, worker.task)])
            for number, worker in working.items():
                printed.add(number, worker.lines())
                if worker.task in ready:
                    results[number] = worker.result()
                    printed.end(number)
        return [results[number] for number in range(len(tasks))]


class _Worker:
    """A process, as its parent sees it."""

    def __init__(self, threads: int) -> None:
        # Ray and torch run threads, of which a fork would leave nothing but their locks.
        spawning = get_context("spawn")
        self.task, task = spawning.Pipe()
        self.output, output = spawning.Pipe(duplex=False)
        self._process = spawning.Process(target=_serve, args=(task, output, threads), daemon=True)
        self._process.start()
        task.close()
        output.close()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def lines(self) -> str:
        """What the process has printed since the last call."""
        read = b""
        while self.output.poll() and (more := os.read(self.output.fileno(), 1 << 16)):
            read += more
        return self._decoder.decode(read)

    def result(self) -> Any:
        """What the task returned. Raises what it raised."""
        try:
            result, error = self.task.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            raise DenseCLIError(
                f"One of the processes ended with exit code {self._process.exitcode}.",
                hint="-9 is often a lack of memory; the same command starts again.",
            ) from None
        if error:
            raise error
        return result

    def ask_to_end(self) -> None:
        self.task.close()
        self._process.terminate()

    def end(self) -> None:
        self._process.join(GRACE)
        self._process.kill()
        self._process.join()
        self.output.close()


class _InTurn:
    """Prints the lines of several tasks as if one ran after the other: those of later tasks wait."""

    def __init__(self, headings: Sequence[str]) -> None:
        self._headings = headings
        self._waiting = [""] * len(headings)
        self._ended = [False] * len(headings)
        self._current = -1
        self._next()

    def add(self, number: int, lines: str) -> None:
        if number == self._current:
            click.echo(lines, err=True, nl=False)
        else:
            self._waiting[number] += lines

    def end(self, number: int) -> None:
        self._ended[number] = True
        while self._current < len(self._ended) and self._ended[self._current]:
            self._next()

    def _next(self) -> None:
        self._current += 1
        if self._current < len(self._headings):
            if heading := self._headings[self._current]:
                say(heading)
            click.echo(self._waiting[self._current], err=True, nl=False)


def _serve(tasks: Connection, output: Connection, threads: int) -> None:
    """Runs the tasks of the parent until it ends the process or is gone."""
    # A terminal sends Ctrl-C to all processes: the parent ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Not at once, so that what the process holds of the system is given back.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    # For torch, which is imported with the first task that needs it.
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    while True:
        try:
            task = tasks.recv()
            tasks.send(_outcome(task))
        except (EOFError, ConnectionError):
            # The process ends as it is: SIGTERM is on its way, and would break off what gives things back.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return


def _end_with_parent() -> None:
    if parent := parent_process():
        parent.join()
        os._exit(1)


def _outcome(task: Callable[[], Any]) -> tuple[Any, Exception | None]:
    try:
        return task(), None
    except Exception as error:
        error.add_note(traceback.format_exc())
        return None, error
