"""Reads a script without running it: every command that it could run, with its words as the shell would expand them.

Strategy: one walk over the syntax tree finds the commands wherever they stand (pipelines, subshells, functions, substitutions,
documents), and what each gets: its redirections, and what is fed to it where that can be known. Variables have every value that
the script assigns anywhere, in whatever order: first walks collect them, a last one judges. A script within a script (`sh -c`,
`eval`, a document for a shell) is read the same way. All of it is bounded; what is beyond a bound is a `ScriptError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from luthien_asgi.policies.shell import wrappers
from luthien_asgi.policies.shell.command import Command, written_by
from luthien_asgi.policies.shell.parsing import ScriptError, is_whole, normalised, parse, text_of
from luthien_asgi.policies.shell.variables import Variables
from luthien_asgi.policies.shell.words import UNKNOWN, Fields, Words

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Script", "read_argv", "read_script"]

_MOST_LOOKED_AT: Final = 20_000
"""Words of all commands of one call, those of scripts within it and of what wrappers might run counted too."""
_MOST_WRAPPERS: Final = 20
_DEEPEST: Final = 150
"""Nesting of the syntax; also of values within values."""
_DEEPEST_SCRIPT: Final = 6
"""Scripts within scripts."""
_MOST_ARGUMENTS: Final = 32
_MOST_WORDS: Final = 200
_MOST_WALKS: Final = 4
_STAND_IN: Final = "${LUTHIEN_ASGI_UNKNOWN}"
"""What stands for an unknown text in a script within a script: a variable that is unknown there as well."""


class Script:
    """What was found in a script and in the scripts within it."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self.commands: list[Command] = []
        self.functions: set[str] = set()
        self.folders: set[str] = set()
        self.written: set[str] = set()
        """What redirections write to."""
        self.bombs = False
        """Whether a function runs itself several times at once."""
        self.level = 0
        self._looked_at = 0
        self._seen: set[tuple[str, Fields]] = set()
        """The scripts within the script that were read, with their positional parameters."""

    def add(self, command: Command, variables: dict[str, list[str]]) -> None:
        """Take a command, what it wraps, and the scripts in its words. Raises `ScriptError`."""
        if not command.argv:
            return
        if command.name == "xargs" or (command.name == "parallel" and command.fed is not None):
            words = [UNKNOWN] if command.fed is None or command.fed == UNKNOWN else command.fed.split()[:_MOST_WORDS]
            command = replace(command, argv=(*command.argv, *words))
        self._look_at(command, variables)
        for argv in filter(None, wrappers.possible(command.argv)):
            self._look_at(replace(command, argv=argv, certain=False), variables)
        inner = wrappers.wrapped(command.argv)
        for _ in range(_MOST_WRAPPERS):
            if not inner:
                return
            self._look_at(replace(command, argv=inner), variables)
            inner = wrappers.wrapped(inner)
        msg = f"a command is wrapped more than {_MOST_WRAPPERS} times"
        raise ScriptError(msg)

    def _look_at(self, command: Command, variables: dict[str, list[str]]) -> None:
        self._charge(len(command.words) + 5)
        self.commands.append(command)
        self._read_within(command, variables)

    def _charge(self, words: int) -> None:
        self._looked_at += words
        if self._looked_at > _MOST_LOOKED_AT:
            msg = f"the script has more than {_MOST_LOOKED_AT} words to look at"
            raise ScriptError(msg)

    def _read_within(self, command: Command, variables: dict[str, list[str]]) -> None:
        found = [*wrappers.scripts(command.argv)]
        if command.name in {*wrappers.SHELLS, "at", "batch"} and command.fed and command.fed != UNKNOWN:
            found.append((command.fed, ()))
        for text, positional in found:
            if not text or (text, positional) in self._seen:
                continue
            self._seen.add((text, positional))
            self._charge(50 + len(text) // 50)
            if self.level >= _DEEPEST_SCRIPT:
                msg = f"the script holds scripts more than {_DEEPEST_SCRIPT} deep"
                raise ScriptError(msg)
            numbered = {str(place): [word] for place, word in enumerate(positional)}
            joined = {name: [" ".join(positional[1:])] for name in "@*"} if positional else {}
            within = variables if command.name == "eval" else {**variables, **numbered, **joined}
            self.level += 1
            _Walk(self, text.replace(UNKNOWN, _STAND_IN), within).all()
            self.level -= 1


def read_script(text: str, *, strict: bool = True) -> Script:
    """Return what a script would run. Raises `ScriptError` where that cannot be told in bounded time.

    A script that does not follow the grammar, or holds one that does not, is an error too when this is `strict`.
    """
    script = Script(strict=strict)
    try:
        _Walk(script, text, {}).all()
    except RecursionError:
        msg = "the script is nested too deeply"
        raise ScriptError(msg) from None
    return script


def read_argv(argv: Sequence[str], *, strict: bool = True) -> Script:
    """Return what a command would run that is given as a list of words, as it is. Raises `ScriptError`."""
    script = Script(strict=strict)
    try:
        script.add(Command(tuple(argv)), {})
    except RecursionError:
        msg = "the script is nested too deeply"
        raise ScriptError(msg) from None
    return script


class _Place(NamedTuple):
    """What a node's surroundings mean for the commands in it."""

    targets: Fields = ()
    fed: str | None = None
    functions: frozenset[str] = frozenset()
    forked: bool = False
    depth: int = 0


_REDIRECTS: Final = frozenset({"file_redirect", "heredoc_redirect", "herestring_redirect"})
_NO_WORDS: Final = _REDIRECTS | {"variable_assignment", "comment"}
_SUBSTITUTIONS: Final = frozenset({"command_substitution", "process_substitution"})


class _Walk:
    """One script, walked twice: for the values of its variables, and for its commands."""

    def __init__(self, script: Script, text: str, variables: dict[str, list[str]]) -> None:
        self._script = script
        written = normalised(text)
        self._source = written.encode("utf-8", "surrogatepass")
        self._root = parse(written)
        self._variables = variables
        self._outputs: dict[int, str] = {}
        self._words = Words(self._source, variables, self._output_of_substitution)
        self._assigned = Variables(self._source, variables, self._words)
        self._judging = False

    def all(self) -> None:
        if self._script.strict and not is_whole(self._root, self._source):
            msg = "the script cannot be parsed"
            raise ScriptError(msg)
        self._collect_values()
        self._judging = True
        self._walk()

    def _collect_values(self) -> None:
        """Walk for the values of variables, and for the values that come of those; what never ends may be anything, too."""
        growing: list[str] = []
        for _ in range(_MOST_WALKS):
            known = {name: len(values) for name, values in self._variables.items()}
            self._walk()
            growing = [name for name, values in self._variables.items() if len(values) != known.get(name)]
            if not growing:
                return
        for name in growing:
            self._assigned.assign(name, [UNKNOWN])

    def _walk(self) -> None:
        self._outputs.clear()
        pending: list[tuple[Node, _Place]] = [(self._root, _Place())]
        while pending:
            node, place = pending.pop()
            if place.depth > _DEEPEST:
                msg = f"the script is nested more than {_DEEPEST} deep"
                raise ScriptError(msg)
            inner = place._replace(depth=place.depth + 1, forked=place.forked or _is_forked(node))
            pending += reversed(list(self._enter(node, inner)))

    def _enter(self, node: Node, place: _Place) -> Iterator[tuple[Node, _Place]]:
        """Note what a node says, and yield its children with their places."""
        match node.type:
            case "command":
                self._command(node, place)
                place = place._replace(fed=None, targets=())
            case "redirected_statement":
                yield from self._redirected(node, place)
                return
            case "pipeline":
                yield from self._pipeline(node.named_children, place)
                return
            case "function_definition":
                name = text_of(node.named_children[0], self._source)
                self._script.functions.add(name)
                place = place._replace(functions=place.functions | {name})
            case "variable_assignment":
                self._assigned.assignment(node)
            case "declaration_command" | "unset_command":
                self._assigned.declaration(node)
            case "for_statement":
                self._assigned.loop(node)
            case "expansion":
                self._assigned.default(node)
        yield from ((child, place) for child in node.named_children)

    # --- what is fed to whom ------------------------------------------------------------------------------------------

    def _pipeline(self, stages: Sequence[Node], place: _Place) -> Iterator[tuple[Node, _Place]]:
        fed = place.fed
        for stage in stages:
            yield stage, place._replace(fed=fed)
            fed = self._output(stage, fed)

    def _redirected(self, node: Node, place: _Place) -> Iterator[tuple[Node, _Place]]:
        redirects = [child for child in node.named_children if child.type in _REDIRECTS]
        body = next((child for child in node.named_children if child.type not in _REDIRECTS), None)
        targets, fed = self._redirections(redirects)
        inner = place._replace(targets=(*place.targets, *targets), fed=place.fed if fed is None else fed)
        if body is not None:
            yield body, inner
        elif targets and self._judging:
            self._add(Command((":",), targets=inner.targets))
        for redirect in redirects:
            for child in redirect.named_children:
                # `cat <<EOF | sh`: the rest of the pipeline is in the redirection.
                continues = redirect.type == "heredoc_redirect" and child.type == "pipeline"
                said = self._output(body, inner.fed) if continues and body is not None else place.fed
                if continues:
                    yield from self._pipeline(child.named_children, place._replace(fed=said, forked=True))
                else:
                    yield child, place

    def _redirections(self, nodes: Sequence[Node]) -> tuple[Fields, str | None]:
        targets: list[str] = []
        fed: str | None = None
        for node in nodes:
            words = [child for child in node.named_children if child.type not in {"file_descriptor", "pipeline"}]
            values = [self._words.texts(child) for child in words]
            if node.type == "file_redirect":
                targets += itertools.chain(*values)
                if not any(child.type.startswith("<") for child in node.children):
                    self._script.written |= set(itertools.chain(*values))
                if any(child.type == "process_substitution" for child in node.named_children):
                    fed = UNKNOWN
            elif node.type == "herestring_redirect":
                fed = values[0][0] if values else UNKNOWN
            else:
                fed = self._document(node)
        return tuple(targets), fed

    def _document(self, node: Node) -> str:
        start = next((child for child in node.named_children if child.type == "heredoc_start"), None)
        body = next((child for child in node.named_children if child.type == "heredoc_body"), None)
        if start is None or body is None:
            return ""
        literal = any(mark in text_of(start, self._source) for mark in "'\"\\")
        return text_of(body, self._source) if literal else self._words.texts(body)[0]

    def _output_of_substitution(self, node: Node) -> str:
        inner = [child for child in node.named_children if child.type != "comment"]
        return self._output(inner[0], None) if len(inner) == 1 else UNKNOWN

    def _output(self, node: Node, fed: str | None) -> str:
        """Return what a command writes, as far as that can be told."""
        if node.id not in self._outputs:
            self._outputs[node.id] = self._written(node, fed)
        return self._outputs[node.id]

    def _written(self, node: Node, fed: str | None) -> str:
        if node.type == "redirected_statement":
            redirects = [child for child in node.named_children if child.type in _REDIRECTS]
            _, given = self._redirections(redirects)
            return self._written(node.named_children[0], fed if given is None else given)
        if node.type == "pipeline":
            for stage in node.named_children:
                fed = self._output(stage, fed)
            return fed if fed is not None else UNKNOWN
        if node.type != "command":
            return UNKNOWN
        argvs = self._argvs(node)
        _, given = self._redirections([child for child in node.named_children if child.type in _REDIRECTS])
        return written_by(argvs[0], fed if given is None else given) if len(argvs) == 1 and argvs[0] else UNKNOWN

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, node: Node, place: _Place) -> None:
        targets, fed = self._redirections([child for child in node.named_children if child.type in _REDIRECTS])
        for argv in self._argvs(node):
            self._assigned.by_command(argv)
            self._script.folders |= _folders(argv)
            if not self._judging:
                continue
            command = Command(
                argv,
                targets=(*place.targets, *targets),
                fed=place.fed if fed is None else fed,
                sources=self._sources(node),
            )
            self._add(command)
            self._script.bombs |= place.forked and command.argv[:1] != () and command.argv[0] in place.functions

    def _add(self, command: Command) -> None:
        written = tuple(target for target in command.targets if target in self._script.written)
        placed = replace(command, folders=frozenset(self._script.folders), written=written)
        self._script.add(placed, self._variables)

    def _argvs(self, node: Node) -> list[Fields]:
        """Return the ways in which a command's words may come out; all words in one where they are too many."""
        words = [self._words.fields(child) for child in node.named_children if child.type not in _NO_WORDS]
        size = 1
        for alternatives in words:
            size *= max(len(alternatives), 1)
            if size > _MOST_ARGUMENTS:
                return [tuple(itertools.chain(*(itertools.chain(*dict.fromkeys(found)) for found in words)))]
        return list(dict.fromkeys(tuple(itertools.chain(*chosen)) for chosen in itertools.product(*words)))

    def _sources(self, node: Node) -> frozenset[str]:
        found: set[str] = set()
        pending = [(child, False) for child in node.named_children]
        while pending:
            at, inside = pending.pop()
            if inside and at.type == "command_name":
                found |= {wrappers.name_of(fields) for fields in self._words.fields(at) if fields}
            pending += [(child, inside or at.type in _SUBSTITUTIONS) for child in at.named_children]
        return frozenset(found)


def _is_forked(node: Node) -> bool:
    return node.type == "pipeline" or any(child.type == "&" for child in node.children)


def _folders(argv: Fields) -> set[str]:
    """Return where a command goes."""
    return (
        {word for word in argv[1:] if not word.startswith("-")} if wrappers.name_of(argv) in {"cd", "pushd", "chdir"} else set()
    )
