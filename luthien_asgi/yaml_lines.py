"""YAML that knows the line of everything in it, with `os.environ/NAME` put in.

PyYAML parses; the values are built here, because its own constructor forgets the lines and lets a duplicate key win in silence.
Deliberate differences from `yaml.safe_load`:

1. A duplicate key is a problem: the reader of the file cannot tell which one counts.
2. Dates stay strings: `api_version: 2024-06-01` is the name of a version.
3. Aliases and merge keys are followed up to a number of values in all, so that a few lines cannot become gigabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypeAlias

import yaml

from luthien_asgi.errors import ConfigError
from luthien_asgi.regular_file import UnusableError, read_regular

__all__ = ["Document", "Place", "Problem", "read", "text_of"]

Place: TypeAlias = tuple[Any, ...]
"""Where a value is: the keys and positions that lead to it."""

REFERENCE: Final = "os.environ/"
_MAX_BYTES: Final = 1024 * 1024
_MAX_VALUES: Final = 100_000
_PLAIN_TAGS: Final = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "map", "seq")}
_TIMESTAMP: Final = "tag:yaml.org,2002:timestamp"
_MERGE: Final = "tag:yaml.org,2002:merge"
_TOO_DEEP: Final = "is nested too deeply"


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong in a file."""

    line: int
    place: Place
    message: str

    def text(self, file: str) -> str:
        """Return `file:line: place: message`."""
        where = f"{dotted(self.place)}: " if self.place else ""
        return f"{file}:{self.line}: {where}{self.message}"


@dataclass(slots=True, kw_only=True)
class Document:
    """A parsed file: its value, where things are in it, and what is wrong so far."""

    file: str
    value: Any = None
    lines: dict[Place, int] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)
    """Values that came from the environment, by the reference that named them: not to be shown."""
    from_environment: set[Place] = field(default_factory=set)
    unresolved: set[Place] = field(default_factory=set)
    """Places whose variable is not set; one problem each was reported."""
    problems: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    """What is likely not what was meant."""
    texts: dict[str, str] = field(default_factory=dict, repr=False)
    """What was read, by the file's path: this file, and those of keys that it names."""
    kept: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What files said earlier, by path: these are not read again."""

    def line_of(self, place: Place) -> int:
        """Return the line of a place, or of the nearest one around it that is in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 1)

    def text_of(self, path: str, read: Callable[[str], str]) -> str:
        """Return what a file says, or said, and note it. Raises what `read` raises."""
        text = self.kept[path] if path in self.kept else read(path)
        self.texts[path] = text
        return text

    @property
    def contents(self) -> dict[str, str]:
        """SHA-256 of what each file said."""
        return {path: sha256(text.encode()).hexdigest() for path, text in self.texts.items()}


def dotted(place: Place) -> str:
    """Return a place as people write it: `policy[0].mode`."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def read(path: Path, *, environ: Mapping[str, str], kept: Mapping[str, str] = MappingProxyType({})) -> Document:
    """Parse a file. Problems that leave the rest readable are in the document's `problems`.

    `kept` is what files said earlier, by path: these are not read again. Raises `ConfigError` with file and line for a file that
    cannot be read at all.
    """
    document = Document(file=str(path), kept=kept)
    text = document.text_of(document.file, text_of)
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        document.value = _Builder(loader, document, environ).build(root, ()) if root is not None else None
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(document.file, error) from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {str(error).partition(chr(10))[0]}") from None
    except RecursionError:
        raise ConfigError(f"{path}: {_TOO_DEEP}") from None
    return document


def text_of(path: str) -> str:
    """Return what a file says. Raises `ConfigError` for one that is no regular file, is too long or not UTF-8."""
    try:
        data = read_regular(path, _MAX_BYTES)
    except UnusableError as error:
        raise ConfigError(f"{path}: {error}") from None
    if len(data) > _MAX_BYTES:
        raise ConfigError(f"{path}: is longer than {_MAX_BYTES} bytes")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{path}:{line}: is not UTF-8") from None


def _syntax_error(file: str, error: yaml.MarkedYAMLError) -> ConfigError:
    mark = error.problem_mark or error.context_mark
    line = mark.line + 1 if mark is not None else 1
    what = error.problem or error.context or "cannot be parsed"
    if "'\\t'" in what:
        what = "a tab where YAML wants spaces"
    return ConfigError(f"{file}:{line}: is not YAML: {what}")


class _Builder:
    """Builds the values of one document."""

    def __init__(self, loader: yaml.SafeLoader, document: Document, environ: Mapping[str, str]) -> None:
        self._loader = loader
        self._document = document
        self._environ = environ
        self._built = 0
        self._around: set[int] = set()

    def build(self, node: yaml.Node, place: Place) -> Any:  # noqa: ANN401 - a YAML value
        self._document.lines.setdefault(place, _line(node))
        self._count(node)
        match node:
            case yaml.MappingNode():
                return self._within(node, place, self._mapping)
            case yaml.SequenceNode():
                return self._within(node, place, self._sequence)
            case _:
                return self._scalar(node, place)

    def _count(self, node: yaml.Node) -> None:
        self._built += 1
        if self._built > _MAX_VALUES:
            raise ConfigError(f"{self._document.file}:{_line(node)}: more than {_MAX_VALUES} values, aliases counted each time")

    def _within(self, node: yaml.Node, place: Place, build: Any) -> Any:  # noqa: ANN401 - one of the two methods below
        if id(node) in self._around:
            raise ConfigError(f"{self._document.file}:{_line(node)}: an alias that contains itself")
        self._check_tag(node, place)
        self._around.add(id(node))
        try:
            return build(node, place)
        finally:
            self._around.discard(id(node))

    def _sequence(self, node: yaml.SequenceNode, place: Place) -> list[Any]:
        return [self.build(item, (*place, number)) for number, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Any, Any]:
        own: dict[Any, Any] = {}
        merged: dict[Any, Any] = {}
        for key_node, value_node in node.value:
            if key_node.tag == _MERGE:
                merged = {**self._merged(value_node, place), **merged}
                continue
            key = self._key(key_node, place)
            if key in own:
                self._problem(
                    key_node, (*place, key), f"is there twice; the first is in line {self._document.lines[*place, key]}"
                )
                continue
            self._document.lines[*place, key] = _line(key_node)
            own[key] = self.build(value_node, (*place, key))
        return {**merged, **own}

    def _merged(self, node: yaml.Node, place: Place) -> dict[Any, Any]:
        value = self.build(node, place)
        parts = value if isinstance(value, list) else [value]
        if not all(isinstance(part, dict) for part in parts):
            self._problem(node, (*place, "<<"), "can merge mappings only")
            return {}
        return {key: item for part in reversed(parts) for key, item in part.items()}

    def _key(self, node: yaml.Node, place: Place) -> Any:  # noqa: ANN401 - a scalar
        if isinstance(node, yaml.ScalarNode):
            return self._plain(node, place)
        self._problem(node, place, "a key must be a plain value, not a list or a mapping")
        return _source(node)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:  # noqa: ANN401 - a scalar
        value = self._plain(node, place)
        if not isinstance(value, str) or not value.startswith(REFERENCE):
            return value
        return self._from_environment(value, place)

    def _plain(self, node: yaml.Node, place: Place) -> Any:  # noqa: ANN401 - a scalar
        if node.tag == _TIMESTAMP:
            return node.value
        if not self._check_tag(node, place):
            return node.value
        try:
            return self._loader.construct_object(node)
        except (ValueError, LookupError):  # PyYAML looks at the first character of a number, and up the words for flags
            self._problem(node, place, f"{node.value!r} does not fit its type {node.tag.rpartition(':')[2]}")
            return node.value

    def _check_tag(self, node: yaml.Node, place: Place) -> bool:
        if node.tag in _PLAIN_TAGS:
            return True
        self._problem(node, place, f"the tag {node.tag} is not supported: plain values only")
        return False

    def _from_environment(self, reference: str, place: Place) -> str:
        name = reference.removeprefix(REFERENCE)
        value = self._environ.get(name)
        if not value:
            what = "is not set" if value is None else "is empty"
            self._document.unresolved.add(place)
            self._document.problems.append(
                Problem(self._document.line_of(place), place, f"the environment variable {name} {what}")
            )
            return reference
        self._document.secrets[reference] = value
        self._document.from_environment.add(place)
        return value

    def _problem(self, node: yaml.Node, place: Place, message: str) -> None:
        self._document.problems.append(Problem(_line(node), place, message))


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _source(node: yaml.Node) -> str:
    return f"line {_line(node)}"
