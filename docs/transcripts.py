"""Runs the commands of a tutorial in a fresh folder and writes what they printed as a page.

    python docs/transcripts.py docs/tutorials/photos.md --picture after/000001-segmentation.png

The commands are those of the tutorial's ```sh blocks. The page is NAME-transcript.md beside the tutorial.
"""

import argparse
import fnmatch
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

HEAD, TAIL, WIDTH = 16, 12, 118
"""Lines of an output that are shown of a longer one, first and last, and characters of a line."""


@dataclass
class Step:
    """A command of a tutorial.

    Attributes:
        heading: The heading that it stands below.
        command: What a shell is given: a line with those that continue it, or with its here-document.
        expected: Lines that it prints, in this order, with others between them; `...` stands for any text.
    """

    heading: str
    command: str
    expected: list[str] = field(default_factory=list)

    def missing(self, printed: str) -> str | None:
        """The first of the expected lines that is not there, if there is one."""
        lines = iter(printed.splitlines())
        for each in self.expected:
            pattern = re.sub(r"\[", "[[]", each).replace("...", "*")
            if not any(fnmatch.fnmatchcase(line.rstrip(), pattern) for line in lines):
                return each
        return None


def steps(page: str) -> list[Step]:
    """The commands of a tutorial's ```sh blocks, each with the ```text block that follows its block."""
    found: list[Step] = []
    heading = ""
    for title, language, text in re.findall(
        r"^##? ([^\n]+)$|^```(\w*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL
    ):
        heading = title or heading
        if language == "sh":
            found += [Step(heading, command) for command in _commands(text)]
        elif language == "text":
            found[-1].expected = text.splitlines()
    return found


def _commands(block: str) -> Iterator[str]:
    """The commands of a block; comments on lines of their own are left out."""
    lines = iter(block.splitlines())
    for line in lines:
        if not line.strip() or line.startswith("#"):
            continue
        command = line
        while command.endswith("\\"):
            command += "\n" + next(lines)
        if end := re.search(r"<<'?(\w+)'?", command):
            while not command.endswith(f"\n{end[1]}"):
                command += "\n" + next(lines)
        yield command


@dataclass(frozen=True)
class Ran:
    """How a command ran: its lines, its exit code, seconds in all, and the longest without a line."""

    lines: list[str]
    code: int
    seconds: float
    silence: float


def run(command: str, folder: Path) -> Ran:
    """Runs a command in a shell, without a terminal and with standard error among its output."""
    started = last = time.monotonic()
    silence, lines = 0.0, []
    scripts = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": scripts, "HOME": str(folder / "home"), "NO_COLOR": "1"}
    process = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder / "work",
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        silence, last = max(silence, time.monotonic() - last), time.monotonic()
        lines.append(line.rstrip("\n"))
    code = process.wait()
    return Ran(lines, code, time.monotonic() - started, max(silence, time.monotonic() - last))


def shortened(lines: Sequence[str]) -> list[str]:
    """An output with its middle, and the ends of long lines, left out and marked as such."""
    shown = [line if len(line) <= WIDTH else f"{line[:WIDTH]} [...]" for line in lines]
    left_out = len(shown) - HEAD - TAIL
    if left_out > 1:
        shown[HEAD:-TAIL] = [f"[... {left_out} lines left out]"]
    return shown


def machine() -> str:
    """What the commands ran on."""
    cores = len(os.sched_getaffinity(0))
    names = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "ray"))
    of = f" of {names[0]}" if names else ""
    return f"{cores} cores{of}, no GPU, Python {platform.python_version()}, {packages}"


def transcript(tutorial: Path, *, about: str, folder: Path) -> str:
    """Runs a tutorial.

    Args:
        tutorial: The page.
        about: Sentences on how it was run, for the page.
        folder: Where to run it, in its subfolder work, with the subfolder home as the home folder.

    Returns:
        The page of what happened.

    Raises:
        SystemExit: A command failed, or did not print what the tutorial says.
    """
    page = tutorial.read_text()
    title = re.findall(r"^# (.+)$", page, re.MULTILINE)[0]
    written, heading, total = [], title, 0.0
    for step in steps(page):
        if step.heading != heading:
            heading = step.heading
            written += [f"## {heading}", ""]
        ran = run(step.command, folder)
        total += ran.seconds
        print(
            f"{ran.seconds:6.1f} s, {ran.silence:5.1f} s silent: {step.command.splitlines()[0]}", flush=True
        )
        if ran.code or (missing := step.missing("\n".join(ran.lines))):
            said = "\n".join(ran.lines)
            reason = f"exit code {ran.code}" if ran.code else f"it did not print {missing!r}"
            raise SystemExit(f"{said}\n{step.command}\n{reason}")
        first, *more = step.command.splitlines()
        lines = [f"$ {first}", *(f"> {line}" for line in more), *shortened(ran.lines)]
        written += ["```", *lines, "```", "", f"*{ran.seconds:.0f} s*" if ran.seconds >= 1 else "", ""]
    taken = f"All commands together took {total / 60:.1f} minutes."
    intro = f"What the commands of [{title}]({tutorial.name}) printed on {date.today()}: {machine()}."
    note = "Lines that are left out are marked. `python docs/transcripts.py` made this page."
    text = "\n".join([f"# Transcript: {title}", "", f"{intro} {about}{taken} {note}", "", *written])
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def main() -> None:
    """Writes the page of one tutorial."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tutorial", type=Path)
    parser.add_argument("--link", action="append", default=[], metavar="NAME=FOLDER", help="a folder to find")
    parser.add_argument("--about", default="", help="sentences for the page on how this was run")
    parser.add_argument("--picture", help="a picture that the commands make, for the page's end")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="densecli-tutorial-") as name:
        folder = Path(name)
        for each in ("home", "work"):
            (folder / each).mkdir()
        for link in options.link:
            there, target = link.split("=", 1)
            (folder / "work" / there).parent.mkdir(parents=True, exist_ok=True)
            (folder / "work" / there).symlink_to(Path(target).resolve())
        about = f"{options.about.strip()} ".lstrip()
        page = transcript(options.tutorial, about=about, folder=folder)
        out = options.tutorial.with_name(f"{options.tutorial.stem}-transcript.md")
        if options.picture:
            picture = out.with_suffix(".png")
            shutil.copy(folder / "work" / options.picture, picture)
            page += f"\n![{options.picture}]({picture.name})\n\n*`{options.picture}`*\n"
        out.write_text(page)
    print(out)


if __name__ == "__main__":
    main()
