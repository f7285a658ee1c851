"""The group of commands: names, errors, suggestions."""

import difflib
import errno
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from types import FrameType
from typing import Any

import click

from densecli.core.errors import DenseCLIError
from densecli.core.plugins import use_plugins
from densecli.core.registry import Registry, registry

NAMES = (
    *(
        "build-shards",
        "relabel",
        "mix",
        "train",
        "train-refiner",
        "export",
        "evaluate",
        "predict",
        "diagnose",
        "plan",
    ),
    *(
        "info",
        "lint",
        "verify",
        "preview",
        "ablate",
        "scaling",
        "categories",
        "list",
        "gc",
        "share",
        "adopt",
        "doctor",
    ),
)
"""The built-in commands in the order of `densecli --help`; each is a module of `densecli.commands`."""

COMMANDS: Registry[click.Command] = registry("commands", noun="command", of=click.Command, reserved=NAMES)
"""Commands of plug-ins."""


class Commands(click.Group):
    """Ends a failure with one sentence and a hint: exit code 1, or 128 + the signal that was the cause.

    Usage errors are click's: exit code 2.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The built-in commands, then those of plug-ins."""
        return [*NAMES, *COMMANDS]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """Finds a command and imports its module."""
        if name in NAMES:
            attribute = name.replace("-", "_")
            found: click.Command = getattr(import_module(f"densecli.commands.{attribute}"), attribute)
            return found
        if name in COMMANDS:
            return COMMANDS[name]
        return None

    def resolve_command(
        self, ctx: click.Context, args: Sequence[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click.Group; an unknown name is refused with the nearest one."""
        try:
            return super().resolve_command(ctx, list(args))
        except click.UsageError as error:
            near = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1)
            if near:
                raise click.UsageError(f"{error.message} Did you mean {near[0]}?", ctx) from None
            raise

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """See click.Group: it shows the help, for which the commands of plug-ins are looked up."""
        with errors_shown(debug="--debug" in args):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with errors_shown(debug=ctx.params["debug"]):
            return super().invoke(ctx)


@contextmanager
def errors_shown(*, debug: bool) -> Iterator[None]:
    """Ends the process where something fails, and says what."""
    try:
        with _terminated():
            yield
    except DenseCLIError as error:
        if debug:
            raise
        click.echo(f"Error: {error}", err=True)
        if advice := error.advice():
            click.echo("\n  ".join([f"Hint: {advice[0]}", *advice[1:]]), err=True)
        raise click.exceptions.Exit(error.exit_code) from None
    except (MemoryError, RuntimeError, OSError) as error:
        told = _told(error)
        if debug or not told:
            raise
        click.echo(f"Error: {told[0]}.\nHint: {told[1]}", err=True)
        raise click.exceptions.Exit(1) from None
    except KeyboardInterrupt as error:
        click.echo("Error: stopped.", err=True)
        raise click.exceptions.Exit(143 if isinstance(error, _Terminated) else 130) from None


def _told(error: Exception) -> tuple[str, str] | None:
    """What failed and what helps; None for an error that only its traceback explains."""
    # A limit may be met anywhere.
    if limit := _limit(error):
        hint = "Raise the limit (ulimit -a shows it), or ask for less at a time."
        return f"The system gives this process no more {limit}", hint
    # click ends a closed pipe quietly.
    if not isinstance(error, OSError) or isinstance(error, ConnectionError):
        return None
    full = error.errno == errno.ENOSPC
    # What has no file is no matter of paths.
    if not (error.filename or full):
        return None
    where = f"{error.filename}: " if error.filename else ""
    hint = "Make room." if full else "Check that the folder exists and that you may write to it."
    if isinstance(error, IsADirectoryError):
        hint = "Name a file in place of the folder."
    return f"{where}{error.strerror}", hint


def _limit(error: Exception) -> str:
    """What the system gives no more of; empty if the error has another cause."""
    if isinstance(error, MemoryError):
        return "memory"
    if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
        return "threads"
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return "open files"
    # A full pipe that does not block has this error too, with the number of characters that were written.
    forked = isinstance(error, BlockingIOError) and error.filename is None
    return "processes" if forked and not hasattr(error, "characters_written") else ""


class _Terminated(KeyboardInterrupt):
    """SIGTERM, where no part of a command heeds it."""


@contextmanager
def _terminated() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does: what is half written is removed."""
    alone = threading.current_thread() is threading.main_thread() and "RANK" not in os.environ
    # A process of several may wait for the others in code where Python hears no signal.
    if not alone or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(_number: int, _frame: FrameType | None) -> None:
        raise _Terminated

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def load_plugin_option(_ctx: click.Context, _param: click.Parameter, value: Sequence[str]) -> None:
    """Loads plug-ins before a command is looked up, which may be theirs."""
    use_plugins(value)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option("--debug", is_flag=True, help="Shows the traceback of an error.")
@click.option(
    "--plugin",
    metavar="MODULE",
    multiple=True,
    is_eager=True,
    expose_value=False,
    callback=load_plugin_option,
    help="Module or .py file that registers more names, here of commands. May be given several times.",
)
@click.version_option(package_name="densecli", help="Shows the version.")
def main(debug: bool) -> None:
    """Run vision-language teachers once, then train dense students from their shards."""


if __name__ == "__main__":
    main()
