"""Commands with many options: a dataclass has them as its fields, and the command is given one value."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import typing
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Options = TypeVar("_Options", bound="DataclassInstance")


def with_options_of(options: type[_Options]) -> Callable[[Callable[[_Options], None]], Callable[..., None]]:
    """Give a command the options of a dataclass.

    Args:
        options: each of its fields is annotated as a parameter of a command would be, with typer.Option or
            typer.Argument, and has a default.

    Returns:
        A decorator of a function that takes the dataclass: Typer sees the fields as the function's parameters.
    """
    hints = typing.get_type_hints(options, include_extras=True)
    parameters = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])
        for name, default in ((field.name, field.default) for field in dataclasses.fields(options))
    ]

    def decorate(command: Callable[[_Options], None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: Any) -> None:
            command(options(**values))

        vars(run)["__signature__"] = inspect.Signature(parameters)
        run.__annotations__ = hints
        return run

    return decorate
