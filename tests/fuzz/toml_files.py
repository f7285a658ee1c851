"""TOML: the specs of ablations, and the configuration files of commands."""

import random
from pathlib import Path
from typing import Any

from densecli.ablation.spec import ABLATIONS, cells, load_spec
from densecli.commands.ablate import flags_of
from densecli.commands.build_shards import build_shards
from densecli.commands.command import Command
from densecli.commands.config_file import read_config
from densecli.commands.evaluate import evaluate
from densecli.commands.train import train

from .frame import Target
from .inputs import mutated, mutated_value, odd_text, odd_value

FLAGS = {"train": flags_of(train), "evaluate": flags_of(evaluate)}
SHIPPED = [path.read_bytes() for path in sorted(ABLATIONS["coco"].glob("*.toml"))]
SPEC = {
    "title": "Thresholds",
    "about": "After a paper.",
    "beside": ["models/a", "models/b"],
    "train": {"epochs": 1, "loss": ["region=1"]},
    "grid": {"theta": [0.1, 0.3], "seed": [0, 1], "decoupling": ["none", "full"]},
    "evaluate": {"limit": 10},
}


def toml(value: Any) -> str:
    """A value as TOML; what TOML has no word for is written as it is."""
    match value:
        case bool():
            return str(value).lower()
        case str():
            shown = "".join(c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08x}" for c in value)
            return f'"{shown}"'
        case list():
            return f"[{', '.join(map(toml, value))}]"
        case dict():
            return f"{{{', '.join(f'{toml(key)} = {toml(each)}' for key, each in value.items())}}}"
        case _:
            return str(value)


def document(value: Any) -> bytes:
    """A document of keys, one a line."""
    lines = [f"{toml(k)} = {toml(v)}" for k, v in value.items()] if isinstance(value, dict) else [toml(value)]
    return "\n".join(lines).encode()


def try_spec(rng: random.Random, folder: Path) -> None:
    """A mutated spec."""
    changed = document(mutated_value(rng, SPEC, rng.choice((1, 1, 2, 4))))
    path = folder / "spec.toml"
    path.write_bytes(changed if rng.random() < 0.7 else mutated(rng, rng.choice(SHIPPED)))
    spec = load_spec(path, FLAGS)
    names = [cell.name for cell in cells(spec)]
    assert names and len(set(names)) == len(names)


def try_config(rng: random.Random, folder: Path) -> None:
    """Odd values for the options of a command, or a file that is damaged."""
    command: Command = rng.choice((train, evaluate, build_shards))
    names = rng.choices(list(command.settings), k=3)
    values = {rng.choice((name, name.replace("_", "-"))): odd_value(rng) for name in names}
    if rng.random() < 0.1:
        values[odd_text(rng)] = 1
    data = document(values)
    path = folder / "config.toml"
    path.write_bytes(mutated(rng, data) if rng.random() < 0.3 else data)
    found = read_config(str(path), command)
    assert found.keys() <= command.settings.keys()


TARGETS = (
    Target(name="specs", try_one=try_spec, quick=300),
    Target(name="configs", try_one=try_config, quick=300),
)
