"""Finds methods by name: those of this package, and those that other packages register by an entry point.

An entry point of the group `nextmask.strategies` names a `strategies.Entry`. Reading the entry points imports none of
the packages; a package is imported when its strategy is asked for. One that cannot be used takes nothing else along.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from strategies.entry import NAME, REMEDY, Entry, Words

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

    from strategies.base import Strategy

GROUP: Final = "nextmask.strategies"
_RESERVED: Final = frozenset({"all", "full"})
"""What `nextmask simulate` calls all strategies, and training on all labels."""
_NONE: Final = frozenset[str]()
logger = logging.getLogger(__name__)


def installed() -> Iterable[EntryPoint]:
    """Return the entry points of all installed packages that register a strategy."""
    from importlib.metadata import entry_points

    return entry_points(group=GROUP)


class Registry:
    """Methods by name.

    Args:
        entries: of this package's methods; nothing that is installed takes their place.
        other_names: another name -> the name of such a method.
        points: reads the entry points; called once, when a name is asked for that is not among the entries.
    """

    def __init__(
        self,
        entries: Iterable[Entry],
        *,
        other_names: Mapping[str, str],
        points: Callable[[], Iterable[EntryPoint]] = installed,
    ) -> None:
        self._own = {entry.name: entry for entry in entries}
        self._own |= {other: self._own[name] for other, name in other_names.items()}
        self._points = points
        self._loaded: dict[str, Entry | str] = {}

    def available(self) -> tuple[str, ...]:
        """Return the names of all methods, sorted; imports none."""
        return tuple(sorted({entry.name for entry in self._own.values()} | self._registered.keys()))

    def importable(self) -> tuple[str, ...]:
        """Return the names of all methods that can be made, sorted; imports all. The log says what ails others."""
        names = []
        for name in self.available():
            try:
                self.entry(name).load()
            except ValueError as error:
                logger.warning("%s", error)
            else:
                names.append(name)
        return tuple(names)

    def entry(self, name: str) -> Entry:
        """Return the facts of a method.

        Raises:
            ValueError: no such method, with the valid names; or a package registers it in a way that cannot be used,
                with the entry point, the package and what to do.
        """
        if name in self._own:
            return self._own[name]
        if name in self._refused:
            raise ValueError(self._refused[name])
        if name not in self._registered:
            raise ValueError(f"unknown strategy {name!r}; available: {', '.join(self.available())}")
        loaded = self._load(name)
        if isinstance(loaded, str):
            raise ValueError(loaded)
        return loaded

    def described(self, name: str) -> Entry:
        """Return the facts of a method; of a method that is unknown or cannot be used, an entry without any needs."""
        try:
            return self.entry(name)
        except ValueError:
            return Entry(name="unknown", method="unknown:Unknown", words=Words(f"what {name} ranks first"), needs=_NONE)

    def create(self, name: str, /, **options: Any) -> Strategy:
        """Return a new method of that name.

        Args:
            options: of the method's class, which says what there are; `preset` stands for those that a paper gives,
                and the others are laid over it.

        Raises:
            ValueError: no such method, option or preset, with the valid ones; or as `entry`.
        """
        return self.entry(name).create(options)

    @property
    def _registered(self) -> Mapping[str, EntryPoint]:
        return self._read[0]

    @property
    def _refused(self) -> Mapping[str, str]:
        return self._read[1]

    @cached_property
    def _read(self) -> tuple[dict[str, EntryPoint], dict[str, str]]:
        """The entry points that can be used and the complaints about others, by name."""
        points: dict[str, list[EntryPoint]] = {}
        for point in self._points():
            points.setdefault(point.name, []).append(point)
        complaints = {name: complaint for name, same in points.items() if (complaint := self._complaint(name, same))}
        for complaint in complaints.values():
            logger.warning("%s", complaint)
        return {name: same[0] for name, same in points.items() if name not in complaints}, complaints

    def _complaint(self, name: str, points: list[EntryPoint]) -> str:
        """Return why entry points of the same name cannot be used; "" if they can."""
        if not NAME.fullmatch(name):
            return f"{_where(points[0])} has no valid name: use small letters, digits and underscores. {REMEDY}"
        if name in self._own or name in _RESERVED:
            return f"{_where(points[0])} has the name of one of nextmask's own: give it another name. {REMEDY}"
        if len(points) > 1:
            both = " and ".join(_where(point) for point in points)
            return f"{both} register the same name: uninstall all but one of these packages, or rename one."
        return ""

    def _load(self, name: str) -> Entry | str:
        """Return the entry that a package registers, or what is wrong with it; each is imported once."""
        if name not in self._loaded:
            self._loaded[name] = loaded = _entry_of(self._registered[name])
            if isinstance(loaded, str):
                logger.warning("%s", loaded)
        return self._loaded[name]


def _entry_of(point: EntryPoint) -> Entry | str:
    try:
        entry = point.load()
    except Exception as error:
        logger.debug("%s", _where(point), exc_info=True)
        return f"{_where(point)} cannot be imported: {type(error).__name__}: {error}. {REMEDY}"
    if not isinstance(entry, Entry):
        kind = type(entry).__name__
        return f"{_where(point)} names a {kind}: let it name a strategies.Entry (docs/strategies.md). {REMEDY}"
    if entry.name != point.name:
        return f"{_where(point)} names an Entry of {entry.name!r}: give both the same name. {REMEDY}"
    return replace(entry, package=_package(point))


def _where(point: EntryPoint) -> str:
    return f"entry point {point.name!r} = {point.value!r} of package {_package(point)}"


def _package(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else "(unknown)"
