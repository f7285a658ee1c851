"""Processes below another one, and the ports that they listen on."""

import os
import subprocess
from contextlib import suppress
from pathlib import Path


def descendants(pid: int) -> dict[int, str]:
    """The processes below `pid`, with their command lines."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], text=True, capture_output=True, check=True)
    rows = [line.split(None, 2) for line in listing.stdout.splitlines()]
    found: dict[int, str] = {}
    while new := {
        int(child): args
        for child, parent, args in rows
        if int(parent) in {pid, *found} and int(child) not in found
    }:
        found |= new
    return found


def listening(pid: int) -> set[str]:
    """Addresses and ports, in hex, on which `pid` and the processes below it listen."""
    sockets = set()
    for each in (pid, *descendants(pid)):
        with suppress(FileNotFoundError):
            for link in os.scandir(f"/proc/{each}/fd"):
                with suppress(FileNotFoundError):
                    sockets.add(os.readlink(link.path))
    found = set()
    for kind in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{kind}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(fields[1])
    return found
