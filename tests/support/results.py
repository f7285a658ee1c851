"""What the commands write, compared with the fields that the reference pages show."""

import json
from collections.abc import Iterator
from types import UnionType
from typing import Any, get_args, get_origin, is_typeddict

import click

from densecli.commands.command import Command
from densecli.commands.options import Options, finite
from densecli.commands.result_fields import fields_of, type_text
from densecli.commands.results import Result

_write = Options.write


def checked_write(options: Options, value: Any) -> None:
    """In place of `Options.write`: compares the result with the forms that its command says it has."""
    context = click.get_current_context(silent=True)
    command = context.command if context else None
    if isinstance(command, Command):
        read = json.loads(json.dumps(finite(value)))
        found = {result: list(of_result(read, result)) for result in command.results}
        assert not found or [] in found.values(), (command.name, min(found.values(), key=len))
    _write(options, value)


def of_result(value: Any, result: Result) -> Iterator[str]:
    """What of a command's result is not as this form says, a sentence each."""
    if not result.by:
        yield from mistakes(value, result.fields, more=bool(result.more))
        return
    for name, each in value.items():
        yield from mistakes(each, result.fields, more=bool(result.more), where=name)


def mistakes(value: Any, of: Any, *, more: bool = False, where: str = "result") -> Iterator[str]:
    """What of a JSON value is not as its type says, a sentence each.

    Args:
        value: The value.
        of: Its type: one of those that `type_text` knows, or a TypedDict.
        more: Whether it may have fields of other names.
        where: What the value is called.
    """
    if isinstance(of, UnionType):
        if all(any(mistakes(value, each)) for each in get_args(of)):
            yield f"{where} is {value!r:.80}, not {type_text(of)}."
    elif is_typeddict(of) or get_origin(of) is dict:
        if not isinstance(value, dict):
            yield f"{where} is {value!r:.80}, not an object."
            return
        if is_typeddict(of):
            yield from _wrong_fields(value, of, more, where)
            return
        for name, each in value.items():
            yield from mistakes(each, get_args(of)[1], where=f"{where}.{name}")
    elif get_origin(of) is list:
        if not isinstance(value, list):
            yield f"{where} is {value!r:.80}, not a list."
            return
        for number, each in enumerate(value):
            yield from mistakes(each, get_args(of)[0], where=f"{where}[{number}]")
    elif of is not Any:
        kinds = (int, float) if of is float else of
        if not isinstance(value, kinds) or (isinstance(value, bool) and of is not bool):
            yield f"{where} is {value!r:.80}, not {type_text(of)}."


def _wrong_fields(value: dict[str, Any], of: Any, more: bool, where: str) -> Iterator[str]:
    fields = {field.name: field for field in fields_of(of)}
    for name in sorted(name for name, field in fields.items() if field.always and name not in value):
        yield f"{where} lacks {name}."
    for name, each in value.items():
        if name in fields:
            yield from mistakes(each, fields[name].type, where=f"{where}.{name}")
        elif not more:
            yield f"{where} has {name}, which no page describes."
