"""Says what a changed labelling configuration means for the existing labels, as a sentence for people."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ml_backend.annotations.label_map import LabelMap
from ml_backend.errors import LabelConfigError


class ConfigChange:
    """The difference between two labelling configurations, and the regions that the new one cannot read.

    Args:
        before: label map that the labels were read with.
        after: label map that they are read with now.

    Attributes:
        dropped: removed class or control -> task id -> number of its regions that are no longer read.
    """

    def __init__(self, before: LabelMap, after: LabelMap) -> None:
        self._before, self._after = before, after
        self.dropped: dict[str, dict[int, int]] = {}
        there = {name: after.index_of(name) for name in before.classes}
        self._removed = [name for name, index in there.items() if index is None]
        named = {name: after.classes[index] for name, index in there.items() if index is not None}
        self._renamed = {old: new for old, new in named.items() if old.casefold() != new.casefold()}
        self._added = [name for name in after.classes if before.index_of(name) is None and name not in named.values()]
        stay = {control.name for control in after.controls}
        self._controls = [control.name for control in before.controls if control.name not in stay]

    def __bool__(self) -> bool:
        """Whether the meaning of labels changed."""
        return bool(self._removed or self._renamed or self._added or self._controls)

    def count(self, task: int, result: Iterable[object]) -> None:
        """Count the regions of an annotation that are no longer read; a second call for a task replaces its count.

        Args:
            task: id.
            result: of the annotation.
        """
        lost = Counter(self._lost_by(region) for region in result if isinstance(region, Mapping))
        for name in (name for name in [*self._removed, *self._controls] if lost[name] or name in self.dropped):
            self.dropped.setdefault(name, {})[task] = lost[name]

    def text(self, *, trained: bool, continues: bool) -> str:
        """Return a sentence that says what changed, what is ignored now, and what the network keeps.

        Args:
            trained: whether there is a network.
            continues: whether the next training starts from its weights.
        """
        changes = [f"{_quoted(name)} was removed{self._loss(name)}" for name in self._removed]
        changes += [f"the control {_quoted(name)} was removed{self._loss(name)}" for name in self._controls]
        changes += [f"{_quoted(old)} is called {_quoted(new)}" for old, new in self._renamed.items()]
        if self._added:
            changes.append(f"{_listed([_quoted(name) for name in self._added])} {_was(self._added)} added")
        return (
            f"The labelling configuration changed: {', '.join(changes)}{self._network(continues) if trained else ''}."
        )

    def _lost_by(self, region: Mapping[str, Any]) -> str | None:
        """Return the removed class or control because of which a region is no longer read; None when it is read."""
        name = next(
            (control.name for control in self._before.controls if control.name == region.get("from_name")), None
        )
        if name is None or name in self._controls:
            return name
        index = self._before.class_of(region)
        return None if index is None or self._after.class_of(region) is not None else self._before.classes[index]

    def _loss(self, name: str) -> str:
        counts = [count for count in self.dropped.get(name, {}).values() if count]
        if not counts:
            return ""
        verb = "is" if sum(counts) == 1 else "are"
        return f" ({_counted(sum(counts), 'region')} in {_counted(len(counts), 'label')} {verb} ignored now)"

    def _network(self, continues: bool) -> str:
        kept = sum(name in self._before.classes for name in self._after.classes)
        if not continues or not kept:
            return "; the next training starts anew"
        if kept == len(self._after.classes):
            return "; the network keeps what it learned of these classes" if kept > 1 else ""
        others = "class" if kept == 1 else f"{kept} classes"
        return f"; the network keeps what it learned of the other {others}"


def config_change(xml: str, after: LabelMap, parse: Callable[[str], LabelMap]) -> ConfigChange | None:
    """Compare with an earlier configuration.

    Args:
        xml: the earlier configuration; empty when there is none.
        after: the label map of the present configuration.
        parse: reads `xml` with the present settings, so that changed settings do not count.

    Returns:
        None when there is no earlier configuration, it cannot be read, or labels mean the same.
    """
    if not xml:
        return None
    try:
        change = ConfigChange(parse(xml), after)
    except LabelConfigError:
        return None
    return change or None


def _quoted(name: str) -> str:
    return f"'{name}'"


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _was(names: Sequence[str]) -> str:
    return "was" if len(names) == 1 else "were"


def _counted(count: int, thing: str) -> str:
    return f"{count} {thing}" if count == 1 else f"{count} {thing}s"
