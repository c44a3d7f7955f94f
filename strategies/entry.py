"""What is known of a method before it is imported: its entry in the catalogue. Imports no torch."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from strategies.base import Strategy

NEEDS: Final = frozenset({"probabilities", "committee", "features", "labelled", "examples", "background"})
"""All that a method may need; `strategies.base.Strategy.needs` says what each of them is."""
PRESET: Final = "preset"
"""The option that stands for a set of options of a paper; no method has an option of its own by this name."""
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
"""What a name looks like: settings, file names and `NAME:{JSON}` hold it."""
REMEDY: Final = "Mend or uninstall that package; all other strategies work as before."
"""What to do about a package whose strategy cannot be used."""
_PLACE: Final = re.compile(r"\w+(\.\w+)*:\w+")


@dataclass(frozen=True)
class Words:
    """A method in plain words, for people who never heard of it.

    Attributes:
        order: what comes first, as the end of "First come …".
        value: name of what it measures of a single image; empty where a single image has no value of its own.
        why: why an image has its place, in a sentence or two. It may name {value}, what was measured of the image,
            and {compared}, how that compares with the other images ("higher than in 17 of 24 images"); empty: a
            sentence that says just that.
    """

    order: str
    value: str = ""
    why: str = ""

    def reason(self, value: float | None = None, compared: str = "") -> str:
        """Say why an image has its place.

        Args:
            value: what was measured of the image; None where nothing was.
            compared: how that compares with the other images.

        >>> Words("dark images", "darkness").reason(0.25, "the highest of 8 images")
        'Its darkness is 0.250, the highest of 8 images.'
        """
        if not self.why and not self.value:
            return f"It has no value of its own. First come {self.order}."
        text = self.why or f"Its {self.value} is {{value}}, {{compared}}."
        shown = "unknown" if value is None else f"{value:#.3g}".rstrip(".")
        return text.format(value=shown, compared=compared)


@dataclass(frozen=True, kw_only=True)
class Entry:
    """The facts of a method that others ask for, without its mathematics.

    Attributes:
        name: what settings and `strategies.create` know it by; the same as its class says.
        method: where its class is, as "module:Class". It is imported when the method is made.
        words: for the dashboard.
        needs: what its class needs with the default options, out of `NEEDS`.
        asks_for_regions: whether its rankings name regions of images, as its class says.
        asks_for_points: whether its rankings may name single pixels, likewise.
        without_points: options with which they name none; empty where the method knows no other question.
        ensemble: whether its committee is an ensemble of trained networks where the settings do not say; else it
            comes from dropout.
        presets: name -> options of a paper. The option `preset` stands for them.
        package: name and version of the package that registered it; empty for the methods of this package.

    Raises:
        ValueError: on creation, when an attribute is not as above; it says what was expected and what was received.
    """

    name: str
    method: str
    words: Words
    needs: frozenset[str]
    asks_for_regions: bool = False
    asks_for_points: bool = False
    without_points: Mapping[str, Any] = field(default_factory=dict)
    ensemble: bool = False
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    package: str = ""

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"Entry.name: expected small letters, digits and underscores, received {self.name!r}")
        if not _PLACE.fullmatch(self.method):
            raise ValueError(f"Entry.method: expected 'module:Class', received {self.method!r}")
        if not getattr(self.words, "order", ""):
            raise ValueError(f"Entry.words: expected Words that say what comes first, received {self.words!r}")
        try:
            self.words.reason(0.5, "the lowest of 2 images")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(
                f"Entry.words.why: expected no field but {{value}} and {{compared}}, received {self.words.why!r}"
            ) from error
        unknown = sorted(set(self.needs) - NEEDS)
        if unknown:
            raise ValueError(f"Entry.needs: expected some of {', '.join(sorted(NEEDS))}, received {unknown[0]!r}")

    def load(self) -> type[Strategy]:
        """Import the method's module and return its class.

        Raises:
            ValueError: a package registered it, and it cannot be imported, or is no strategy of this name.
        """
        module, _, name = self.method.partition(":")
        if not self.package:
            return _class(module, name)
        try:
            method = _class(module, name)
        except Exception as error:  # whatever a module raises while it is imported
            raise ValueError(
                f"strategy {self.name!r}: its class {self.method} in package {self.package} cannot be imported: "
                f"{type(error).__name__}: {error}. {REMEDY}"
            ) from error
        self._check(method)
        return method

    def options(self) -> dict[str, Any]:
        """Return the default of every option by its name; imports the method.

        Raises:
            ValueError: as `load`.
        """
        return {name: option.default for name, option in inspect.signature(self.load()).parameters.items()}

    def create(self, options: Mapping[str, Any]) -> Strategy:
        """Return the method with these options.

        Args:
            options: `preset` stands for options that a paper gives, which the others are laid over.

        Raises:
            ValueError: no such option or preset, or a value that is none; it lists the valid ones. Or as `load`.
        """
        method, given = self.load(), self._with_preset(options)
        valid = self.options()
        unknown = sorted(set(given) - set(valid))
        if unknown:
            names = ", ".join(valid) or "none"
            raise ValueError(f"unknown option {unknown[0]!r} of strategy {self.name!r}; valid: {names}")
        return method(**given)

    def _with_preset(self, options: Mapping[str, Any]) -> dict[str, Any]:
        given = dict(options)
        if PRESET not in given:
            return given
        preset = given.pop(PRESET)
        if not isinstance(preset, str) or preset not in self.presets:
            raise ValueError(f"unknown preset {preset!r}; valid: {', '.join(self.presets) or 'none'}")
        return {**self.presets[preset], **given}

    def _check(self, method: object) -> None:
        from strategies.base import Strategy

        where = f"strategy {self.name!r}: {self.method} in package {self.package}"
        if not isinstance(method, type) or not issubclass(method, Strategy):
            raise ValueError(f"{where} is no Strategy: let its class inherit from strategies.Strategy. {REMEDY}")
        if getattr(method, "name", None) != self.name:
            received = getattr(method, "name", None)
            raise ValueError(f"{where} has the name {received!r}: give class and Entry the same name. {REMEDY}")


def _class(module: str, name: str) -> type[Strategy]:
    method: type[Strategy] = getattr(importlib.import_module(module), name)
    return method
