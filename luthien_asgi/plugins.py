"""Classes that an operator names in the configuration: found, checked and made with helpful messages.

Nothing is imported that was not named. Messages are sentences without file and line; the caller knows those.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from difflib import get_close_matches
from types import ModuleType
from typing import Any

from luthien_asgi.json_schema import parameters_of

__all__ = ["PluginError", "argument_problems", "find", "find_function", "make", "meant"]


class PluginError(ValueError):
    """A class cannot be found or made; the message says why."""


def meant(name: object, known: Collection[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of the known names, or a list of them when none is near."""
    near = get_close_matches(str(name), list(known), n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(sorted(known))}" if known else ""


def find(path: str) -> type[Any]:
    """Return the class at a dotted path. Raises `PluginError`."""
    found = _found(path, "Class")
    if not isinstance(found, type):
        raise PluginError(f"{path} is not a class")
    return found


def find_function(path: str) -> Callable[..., Any]:
    """Return the function at a dotted path. Raises `PluginError`."""
    found = _found(path, "function")
    if isinstance(found, type) or not callable(found):
        raise PluginError(f"{path} is not a function")
    return found


def _found(path: str, what: str) -> object:
    module_name, _, name = path.rpartition(".")
    if not module_name:
        raise PluginError(f"{path!r} is not a dotted path: write module.{what}")
    found = getattr(_imported(module_name), name, None)
    if found is None:
        known = [
            key
            for key, value in vars(_imported(module_name)).items()
            if isinstance(value, type) == (what == "Class") and callable(value) and not key.startswith("_")
        ]
        raise PluginError(f"the module {module_name} has no {name!r}{meant(name, known)}")
    return found


def _imported(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            missing = "" if error.name == name else f" (there is no {error.name!r})"
            raise PluginError(f"there is no module {name!r}{missing}") from None
        raise PluginError(f"the module {name!r} cannot be imported: {error}") from error
    except Exception as error:
        raise PluginError(f"the module {name!r} cannot be imported: {type(error).__name__}: {error}") from error


def make(cls: type[Any], arguments: Mapping[str, Any]) -> Any:  # noqa: ANN401 - an object of a class that the operator named
    """Make an object. Raises `PluginError` with what the constructor had to say."""
    try:
        return cls(**arguments)
    except (ValueError, TypeError, LookupError, OSError, ImportError) as error:
        raise PluginError(str(error) or type(error).__name__) from error
    except Exception as error:
        raise PluginError(f"{type(error).__name__}: {error}") from error


def argument_problems(cls: type[Any], arguments: Collection[str]) -> Sequence[tuple[str | None, str]]:
    """Return what is wrong with the names of the arguments: pairs of the name (None for a missing one) and a sentence."""
    signature = parameters_of(cls)
    known = [name for name, parameter in signature.items() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    takes_all = len(known) < len(signature)
    unknown: list[tuple[str | None, str]] = [
        (name, f"{cls.__name__} takes no {name!r}{meant(name, known)}")
        for name in arguments
        if name not in known and not takes_all
    ]
    required = [name for name in known if signature[name].default is inspect.Parameter.empty and name not in arguments]
    return unknown + [(None, f"{cls.__name__} needs {name!r}") for name in required]
