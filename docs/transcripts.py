"""Runs the commands of a tutorial in a fresh folder and writes what they printed as a page.

    python docs/transcripts.py docs/tutorials/photos.md --picture after/000001-segmentation.png

The commands are those of the tutorial's ```sh blocks. The page is NAME-transcript.md beside the tutorial.
"""

import argparse
import ctypes
import fnmatch
import os
import platform
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from importlib.metadata import version
from pathlib import Path

from PIL import Image

HEAD, TAIL, WIDTH = 16, 12, 118
"""Lines of an output that are shown of a longer one, first and last, and characters of a line."""
PICTURE = 560
"""Pixels of a picture's longer side."""
PR_SET_CHILD_SUBREAPER = 36
"""From Linux' prctl.h."""


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
    """How a command ran.

    Attributes:
        lines: What it printed.
        code: Its exit code.
        seconds: Seconds in all.
        cpu: Seconds of the processor, those of all processes that it has started.
        silence: The longest time without a line, in seconds.
    """

    lines: list[str]
    code: int
    seconds: float
    cpu: float
    silence: float


def run(command: str, folder: Path) -> Ran:
    """Runs a command in a shell, without a terminal and with standard error among its output."""
    started = last = time.monotonic()
    before = _cpu()
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
    seconds, silence = time.monotonic() - started, max(silence, time.monotonic() - last)
    _reap()
    return Ran(lines, code, seconds, _cpu() - before, silence)


def _cpu() -> float:
    """Seconds of the processor that all children which have ended took, with their own children."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _reap(seconds: float = 30.0) -> None:
    """Waits for what a command has left behind, as Ray does for a moment: only then its time is counted."""
    end = time.monotonic() + seconds
    with suppress(ChildProcessError):
        while time.monotonic() < end:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.1)


def shortened(lines: Sequence[str]) -> list[str]:
    """An output with its middle, and the ends of long lines, left out and marked as such."""
    shown = [line if len(line) <= WIDTH else f"{line[:WIDTH]} [...]" for line in lines]
    left_out = len(shown) - HEAD - TAIL
    if left_out > 1:
        shown[HEAD:-TAIL] = [f"[... {left_out} lines left out]"]
    return shown


def _took(cpu: float, seconds: float) -> str:
    return f"*{cpu:.0f} s of CPU, {seconds:.0f} s by the clock*"


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
    written, heading, total, cpu = [], title, 0.0, 0.0
    # Processes whose parents have ended become children of this one.
    if ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise SystemExit("This system does not count the time of processes that are left behind.")
    for step in steps(page):
        if step.heading != heading:
            heading = step.heading
            written += [f"## {heading}", ""]
        ran = run(step.command, folder)
        total, cpu = total + ran.seconds, cpu + ran.cpu
        print(
            f"{ran.cpu:6.1f} s of CPU, {ran.seconds:6.1f} s, {ran.silence:5.1f} s silent: "
            f"{step.command.splitlines()[0]}",
            flush=True,
        )
        if ran.code or (missing := step.missing("\n".join(ran.lines))):
            said = "\n".join(ran.lines)
            reason = f"exit code {ran.code}" if ran.code else f"it did not print {missing!r}"
            raise SystemExit(f"{said}\n{step.command}\n{reason}")
        first, *more = step.command.splitlines()
        lines = [f"$ {first}", *(f"> {line}" for line in more), *shortened(ran.lines)]
        written += ["```", *lines, "```", "", _took(ran.cpu, ran.seconds) if ran.seconds >= 1 else "", ""]
    taken = (
        f"All commands together took {cpu / 60:.1f} minutes of CPU, {total / 60:.1f} minutes by the clock."
    )
    intro = f"What the commands of [{title}]({tutorial.name}) printed on {date.today()}: {machine()}."
    note = "Lines that are left out are marked. `python docs/transcripts.py` made this page."
    text = "\n".join([f"# Transcript: {title}", "", f"{intro} {about}{taken} {note}", "", *written])
    return re.sub(r"\n{3,}", "\n\n", text).rstrip() + "\n"


def small_copy(picture: Path, out: Path) -> None:
    """Writes a picture with fewer pixels and colours: a page should stay small."""
    with Image.open(picture) as found:
        small = found.convert("RGB")
    small.thumbnail((PICTURE, PICTURE))
    small.quantize(64, dither=Image.Dither.NONE).save(out, optimize=True)


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
            small_copy(folder / "work" / options.picture, picture)
            page += f"\n![{options.picture}]({picture.name})\n\n*`{options.picture}`*\n"
        out.write_text(page)
    print(out)


if __name__ == "__main__":
    main()
