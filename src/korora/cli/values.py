"""The words of a command line as values, without the library that typer would load for any of them.

Promise: every value is what typer makes of it. Text, the words of a choice, and paths of which nothing is
asked are made here; typer makes all others, and those of words that are not plain.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from enum import Enum, EnumType
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args, get_origin

if TYPE_CHECKING:
    from typer._click.core import Command, Context, Parameter

_AS_TYPER: Final = object()
_ASKED_OF_PATHS: Final = ("exists", "writable", "resolve_path", "allow_dash", "path_type", "parser")
_GRANTED_TO_PATHS: Final = ("file_okay", "dir_okay", "readable")


def plainly(command: Command) -> Command:
    """The command, and those below it, whose plain values need no tenth of a second."""
    usual = command.get_params

    def get_params(context: Context) -> list[Parameter]:
        """Also the one for help, which is made when it is asked for."""
        return [_plain(parameter) for parameter in usual(context)]

    command.get_params = get_params  # type: ignore[method-assign, assignment]
    for below in getattr(command, "commands", {}).values():
        plainly(below)
    return command


def _plain(parameter: Parameter) -> Parameter:
    usual = parameter.process_value
    if not isinstance(usual, partial):
        parameter.process_value = partial(_processed, parameter, usual)  # type: ignore[method-assign]
    return parameter


def _processed(parameter: Parameter, usual: Callable[[Any, Any], Any], context: Context, value: Any) -> Any:
    made = _made(parameter, value)
    if made is _AS_TYPER:
        return usual(context, value)
    return parameter.callback(context, parameter, made) if parameter.callback is not None else made


def _made(parameter: Parameter, value: Any) -> Any:
    several = getattr(parameter, "multiple", False) or parameter.nargs == -1
    if value is None:
        return _AS_TYPER if parameter.required else () if several else None
    words = value if several else [value]
    make = _maker(parameter)
    if make is None or not isinstance(words, list | tuple) or not words or not all(map(_is_plain, words)):
        return _AS_TYPER
    if make is Path and not all(map(_may_be_read, words)):
        return _AS_TYPER
    if isinstance(make, EnumType) and not _choices(make).issuperset(words):
        return _AS_TYPER
    return [make(word) for word in words] if several else make(value)


def _maker(parameter: Parameter) -> Callable[[str], Any] | None:
    """What makes a value of one word; None where only typer knows."""
    described = getattr(parameter, "type_descriptor", None)
    if described is None or parameter.nargs not in {1, -1}:
        return None
    wanted, info = described.annotation, described.parameter_info
    if get_origin(wanted) is list:
        (wanted,) = get_args(wanted)
    if wanted is str and info.parser is None:
        return str
    if isinstance(wanted, EnumType):
        return wanted if info.case_sensitive and info.parser is None else None
    asks = any(getattr(info, name) for name in _ASKED_OF_PATHS)
    grants = all(getattr(info, name) for name in _GRANTED_TO_PATHS)
    return Path if wanted is Path and grants and not asks else None


def _choices(made_of: EnumType) -> set[str]:
    members: Mapping[str, Enum] = made_of.__members__
    return {one.value for one in members.values()}


def _is_plain(word: Any) -> bool:
    return isinstance(word, str) and word.isprintable()


def _may_be_read(word: str) -> bool:
    """Typer refuses a path that is there and may not be read."""
    return not Path(word).exists() or os.access(word, os.R_OK)
