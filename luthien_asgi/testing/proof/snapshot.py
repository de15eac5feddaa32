"""Whether a policy writes on itself: what its fields hold, as a value that can be compared later.

Strategy: the policy's own objects are looked into, however deep, containers of Python's own too; objects of other libraries and
of the standard library are taken for what they are called with, by identity, since caches of theirs are theirs. What cannot be
looked into is the same as long as it is the same object.
"""

from __future__ import annotations

import reprlib
import sys
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from random import Random
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final

from luthien_asgi.compose import Composable
from luthien_asgi.policy import Policy

__all__ = ["Snapshot", "changes", "snapshot"]

Snapshot = Mapping[str, tuple[object, str]]
"""By the path of a field (`self.seen['x']`) what it is, and how it is shown."""

_MOST: Final = 20_000
"""Values that are looked at; a policy with a longer list of words is looked at in part."""
_PLAIN: Final = (str, bytes, int, float, complex, bool, type(None), range)
_CLOSED: Final = (type, FunctionType, MethodType, ModuleType)


def snapshot(policy: Composable) -> Snapshot:
    """Return what a policy's fields hold now, its class's data among them."""
    found: dict[str, tuple[object, str]] = {}
    home = {_top(cls) for cls in type(policy).__mro__}
    pending: deque[tuple[str, Any]] = deque(_fields(policy, "self"))
    pending.extend(_class_data(type(policy)))
    seen = {id(policy)}
    while pending and len(found) < _MOST:
        path, value = pending.popleft()
        inside = _inside(value, path, home)
        found[path] = (_mark(value), reprlib.repr(value))
        if inside is not None and id(value) not in seen:
            seen.add(id(value))
            pending.extend(inside)
    return found


def changes(before: Snapshot, after: Snapshot, *, ignoring: Collection[str] = ()) -> Iterator[str]:
    """Yield what is different, a line each; `ignoring` are names of the policy's own fields."""
    skipped = tuple(f"self.{name}" for name in ignoring)
    for path in sorted(before.keys() | after.keys()):
        if any(path == name or path.startswith((name + ".", name + "[", name + "{")) for name in skipped):
            continue
        was, now = before.get(path), after.get(path)
        if was is None:
            yield f"{path} is new: {now[1] if now else ''}"
        elif now is None:
            yield f"{path} is gone; it was {was[1]}"
        elif was[0] != now[0]:
            yield f"{path} was {was[1]} and is {now[1]}"


def _mark(value: Any) -> object:  # noqa: ANN401
    """Return what a value is itself, without what is inside it: equal marks are equal values. It keeps the value alive."""
    if isinstance(value, _PLAIN):
        return type(value), value
    if isinstance(value, bytearray):
        return type(value), bytes(value)
    if isinstance(value, Random):
        return type(value), value.getstate()
    if isinstance(value, list | tuple | dict | set | frozenset | deque):
        return type(value), len(value)
    if type(value).__module__ == "itertools":
        return type(value), repr(value)
    return _Same(value)


class _Same:
    """Equal to a mark of the very same object."""

    __hash__ = None  # type: ignore[assignment]  # never a key

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other.value is self.value


def _inside(value: Any, path: str, home: Collection[str]) -> list[tuple[str, Any]] | None:  # noqa: ANN401
    """Return what is in a value by its path, or None for one that is not looked into."""
    if isinstance(value, _PLAIN):
        return None
    if isinstance(value, Mapping):
        return [(f"{path}[{key!r:.60}]", item) for key, item in list(value.items())]
    if isinstance(value, list | tuple | deque):
        return [(f"{path}[{place}]", item) for place, item in enumerate(value)]
    if isinstance(value, set | frozenset):
        return [(f"{path}{{{item!r:.60}}}", item) for item in sorted(value, key=repr)]
    if isinstance(value, _CLOSED) or not _is_own(type(value), home):
        return None
    return list(_fields(value, path))


def _is_own(cls: type, home: Collection[str]) -> bool:
    """Tell whether an object's class is the policy's own code rather than a library's."""
    top = _top(cls)
    if top in home:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return top not in sys.stdlib_module_names and "site-packages" not in file


def _top(cls: type) -> str:
    return cls.__module__.partition(".")[0]


def _fields(holder: Any, path: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401
    for name, value in list(getattr(holder, "__dict__", {}).items()):
        yield f"{path}.{name}", value
    for cls in type(holder).__mro__:
        slots = cls.__dict__.get("__slots__", ())
        for slot in (slots,) if isinstance(slots, str) else slots:
            name = f"_{cls.__name__.lstrip('_')}{slot}" if slot.startswith("__") and not slot.endswith("__") else slot
            if name not in {"__dict__", "__weakref__"} and hasattr(holder, name):
                yield f"{path}.{name}", getattr(holder, name)


def _class_data(cls: type) -> Iterator[tuple[str, Any]]:
    """Yield the data of the policy's classes: a list there is shared as one on the object is."""
    for owner in cls.__mro__:
        if owner in {Policy, object}:
            continue
        for name, value in list(vars(owner).items()):
            if not name.startswith("__") and not name.startswith("_abc") and not callable(value):
                yield f"class {owner.__name__}.{name}", value
