"""The command `doctor`: looks at this machine, and says what is missing and what helps."""

from typing import Annotated, TypedDict

from densecli.commands.command import command
from densecli.commands.options import Options
from densecli.commands.results import Result


class CheckedPart(TypedDict):
    """One thing that was looked at."""

    name: Annotated[str, "What it is."]
    status: Annotated[str, "ok, note or problem."]
    found: Annotated[str, "What was found."]
    hint: Annotated[str, "What helps; empty if nothing is wrong."]


class Examined(TypedDict):
    """A machine."""

    problems: Annotated[int, "Number of problems."]
    notes: Annotated[int, "Number of notes."]
    checks: Annotated[list[CheckedPart], "Each check."]


@command(results=(Result(fields=Examined),))
def doctor(options: Options) -> int:
    """Look at this machine: Python, packages that clash, torch, GPUs, NCCL, Ray, memory, /dev/shm, open
    files, disk, and whether the hub of weights answers. The exit code is 1 if there is a problem.

    \b
    densecli doctor
    """
    from densecli.core.doctor import examine

    checks = list(examine())
    width = max(len(check.name) for check in checks)
    marks = {"ok": "ok     ", "note": "note   ", "problem": "PROBLEM"}
    lines = []
    for check in checks:
        lines.append(f"{marks[check.status]}  {check.name:<{width}}  {check.found}")
        if check.hint:
            lines.append(f"{'':{len(marks['ok']) + width + 4}}{check.hint}")
    problems = sum(check.status == "problem" for check in checks)
    notes = sum(check.status == "note" for check in checks)
    lines.append(f"{len(checks)} checks, {notes} notes, {problems} problems.")
    values = {"problems": problems, "notes": notes, "checks": [check.to_dict() for check in checks]}
    options.say("\n".join(lines), values)
    return 1 if problems else 0
