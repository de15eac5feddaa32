"""Reads a script without running it: every command that it could run, with its words as the shell would expand them.

Strategy: one walk over the syntax tree finds the commands wherever they stand (pipelines, subshells, functions, substitutions,
documents), and what each gets: its redirections, and what is fed to it where that can be known. Variables have every value that
the script assigns anywhere, in whatever order: first walks collect them, a last one judges. A script within a script (`sh -c`,
`eval`, a document for a shell) is read the same way. All of it is bounded; what is beyond a bound is a `ScriptError`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from luthien_asgi.policies.shell import environment, evaluated, wrappers
from luthien_asgi.policies.shell.command import Command
from luthien_asgi.policies.shell.feeds import REDIRECTS, Feeds, is_output
from luthien_asgi.policies.shell.listed import with_input
from luthien_asgi.policies.shell.parsing import ScriptError, is_whole, normalised, parse, text_of
from luthien_asgi.policies.shell.variables import Variables
from luthien_asgi.policies.shell.words import UNKNOWN, Fields

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["Script", "read_argv", "read_environment", "read_script"]

_MOST_LOOKED_AT: Final = 20_000
"""Words of all commands of one call, those of scripts within it and of what wrappers might run counted too."""
_MOST_WRAPPERS: Final = 20
_DEEPEST: Final = 150
"""Nesting of the syntax; also of values within values."""
_DEEPEST_SCRIPT: Final = 6
"""Scripts within scripts."""
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
        self.renamed: dict[str, set[str]] = {}
        """What an alias or the table of paths has a name stand for."""
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
        command = with_input(command)
        if given := environment.assigned_in(command.argv):
            variables = {**variables, **{name: [value] for name, value in given}}
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

    def rename(self, argv: Fields) -> None:
        """Note what `alias` and `hash -p` have a name stand for."""
        for name, text in wrappers.renamed_by(argv):
            self.renamed.setdefault(name, set()).add(text)

    def _look_at(self, command: Command, variables: dict[str, list[str]]) -> None:
        others = [replace(command, argv=(*text.split(), *command.args)) for text in self.renamed.get(command.argv[0], ())]
        for one in [command, *others]:
            self._charge(len(one.words) + 5)
            self.commands.append(one)
            self._read_within(one, variables)

    def _charge(self, words: int) -> None:
        self._looked_at += words
        if self._looked_at > _MOST_LOOKED_AT:
            msg = f"the script has more than {_MOST_LOOKED_AT} words to look at"
            raise ScriptError(msg)

    def _read_within(self, command: Command, variables: dict[str, list[str]]) -> None:
        found = [*wrappers.scripts(command.argv)]
        if command.fed and command.fed != UNKNOWN and wrappers.runs_input(command.argv):
            found.append((command.fed, ()))
        for text, positional in found:
            numbered = {str(place): [word] for place, word in enumerate(positional)}
            joined = {name: [" ".join(positional[1:])] for name in "@*"} if positional else {}
            own = command.name in {"eval", ".", "source"}
            self.read(text, variables if own else {**variables, **numbered, **joined}, positional)
        texts = evaluated.followed(evaluated.in_words(command.argv), variables)
        for text in itertools.chain(environment.in_words(command.argv), *map(evaluated.as_documents, texts)):
            self.read(text, dict(variables))

    def read(self, text: str, variables: dict[str, list[str]], positional: Fields = ()) -> None:
        """Read a script within the script, once. Raises `ScriptError`."""
        if not text or (text, positional) in self._seen:
            return
        self._seen.add((text, positional))
        self._charge(50 + len(text) // 50)
        if self.level >= _DEEPEST_SCRIPT:
            msg = f"the script holds scripts more than {_DEEPEST_SCRIPT} deep"
            raise ScriptError(msg)
        self.level += 1
        _Walk(self, text.replace(UNKNOWN, _STAND_IN), variables).all()
        self.level -= 1


def read_script(text: str, *, strict: bool = True, fed: str | None = None, folders: Iterable[str] = ()) -> Script:
    """Return what a script would run. Raises `ScriptError` where that cannot be told in bounded time.

    A script that does not follow the grammar, or holds one that does not, is an error too when this is `strict`. What its
    commands read from their input is `fed`; it begins in one of `folders`.
    """
    script = Script(strict=strict)
    script.folders |= set(folders)
    try:
        _Walk(script, text, {}, fed=fed).all()
    except RecursionError:
        msg = "the script is nested too deeply"
        raise ScriptError(msg) from None
    return script


def read_environment(values: Iterable[tuple[str, str]], *, strict: bool = True) -> Script:
    """Return what the variables that a command is given have others run. Raises `ScriptError`."""
    script = Script(strict=strict)
    try:
        for name, value in values:
            for text in environment.code_in(name, value):
                script.read(text, {})
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
    listed: Fields = ()
    functions: frozenset[str] = frozenset()
    forked: bool = False
    depth: int = 0


_SUBSTITUTIONS: Final = frozenset({"command_substitution", "process_substitution"})


class _Walk:
    """One script, walked twice: for the values of its variables, and for its commands."""

    def __init__(self, script: Script, text: str, variables: dict[str, list[str]], *, fed: str | None = None) -> None:
        self._script = script
        self._given = _Place(fed=fed)
        written = normalised(text)
        self._source = written.encode("utf-8", "surrogatepass")
        self._root = parse(written)
        self._variables = variables
        self._feeds = Feeds(self._source, variables, script.written)
        self._words = self._feeds.words
        self._assigned = Variables(self._source, variables, self._words)
        self._evaluated: dict[str, None] = {}
        self._judging = False

    def all(self) -> None:
        if self._script.strict and not is_whole(self._root, self._source):
            msg = "the script cannot be parsed"
            raise ScriptError(msg)
        self._collect_values()
        self._judging = True
        self._walk()
        for text in evaluated.followed(self._evaluated, self._variables):
            self._read_all(evaluated.as_documents(text))
        for name in filter(environment.is_code, [*self._variables]):
            for value in [*self._variables[name]]:
                self._read_all(environment.code_in(name, value))

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
        self._feeds.outputs.clear()
        pending: list[tuple[Node, _Place]] = [(self._root, self._given)]
        while pending:
            node, place = pending.pop()
            if place.depth > _DEEPEST:
                msg = f"the script is nested more than {_DEEPEST} deep"
                raise ScriptError(msg)
            inner = place._replace(depth=place.depth + 1, forked=place.forked or _is_forked(node))
            pending += reversed(list(self._enter(node, inner)))

    def _enter(self, node: Node, place: _Place) -> Iterator[tuple[Node, _Place]]:
        """Note what a node says, and yield its children with their places."""
        if self._judging:
            self._evaluate(node)
        match node.type:
            case "command":
                self._command(node, place)
                yield from ((child, self._within(child, node, place)) for child in node.named_children)
                return
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
                place = place._replace(listed=(*place.listed, *self._feeds.listed_in(node)))
            case "expansion":
                self._assigned.default(node)
        yield from ((child, place) for child in node.named_children)

    # --- what is fed to whom ------------------------------------------------------------------------------------------

    def _pipeline(self, stages: Sequence[Node], place: _Place) -> Iterator[tuple[Node, _Place]]:
        fed, listed = place.fed, place.listed
        for stage in stages:
            yield stage, place._replace(fed=fed, listed=listed)
            fed, listed = self._feeds.output(stage, fed), self._feeds.listed(stage, listed)

    def _within(self, child: Node, command: Node, place: _Place) -> _Place:
        """Return what a command's words mean for the commands in them: `tee >(sh)` feeds a shell."""
        inner = place._replace(fed=None, listed=(), targets=())
        return inner._replace(fed=self._feeds.output(command, place.fed)) if is_output(child, self._source) else inner

    def _redirected(self, node: Node, place: _Place) -> Iterator[tuple[Node, _Place]]:
        redirects = [child for child in node.named_children if child.type in REDIRECTS]
        body = next((child for child in node.named_children if child.type not in REDIRECTS), None)
        targets, fed = self._feeds.redirections(redirects)
        inner = place._replace(targets=(*place.targets, *targets), fed=place.fed if fed is None else fed)
        if body is not None:
            yield body, inner
        elif targets and self._judging:
            self._add(Command((":",), targets=inner.targets))
        for redirect in redirects:
            for child in redirect.named_children:
                # `cat <<EOF | sh`: the rest of the pipeline is in the redirection.
                continues = redirect.type == "heredoc_redirect" and child.type == "pipeline"
                takes = continues or is_output(child, self._source)
                said = self._feeds.output(body, inner.fed) if takes and body is not None else UNKNOWN if takes else place.fed
                if continues:
                    yield from self._pipeline(child.named_children, place._replace(fed=said, forked=True))
                else:
                    yield child, place._replace(fed=said)

    # --- what is evaluated ----------------------------------------------------------------------------------------------

    def _evaluate(self, node: Node) -> None:
        """Note what the shell evaluates in a node beside commands: subscripts and arithmetic; read prompts."""
        texts = evaluated.in_node(node, self._source, self._words)
        if node.type in {"declaration_command", "unset_command"}:
            texts += evaluated.in_words(self._feeds.declared(node))
        self._evaluated |= dict.fromkeys(texts)
        if name := evaluated.shown_as_prompt(node, self._source):
            values = evaluated.followed([name], self._variables)[1:] or [UNKNOWN]
            for text in values:
                self._read_all([UNKNOWN] if text == UNKNOWN else evaluated.as_prompts(text))

    def _read_all(self, texts: Iterable[str]) -> None:
        for text in texts:
            self._script.read(text, dict(self._variables))

    # --- commands -----------------------------------------------------------------------------------------------------

    def _command(self, node: Node, place: _Place) -> None:
        targets, given = self._feeds.redirections([child for child in node.named_children if child.type in REDIRECTS])
        fed = place.fed if given is None else given
        for argv in self._feeds.argvs(node):
            self._assigned.by_command(argv, fed)
            self._script.rename(argv)
            if argv and argv[0] in self._script.functions:
                self._assigned.positional(argv[1:])
            self._script.folders |= wrappers.folders_of(argv)
            if not self._judging:
                continue
            command = Command(
                argv,
                targets=(*place.targets, *targets),
                fed=fed,
                listed=(*place.listed, *self._feeds.listed_in(node)),
                sources=self._sources(node),
            )
            self._add(command)
            self._script.bombs |= place.forked and command.argv[:1] != () and command.argv[0] in place.functions

    def _add(self, command: Command) -> None:
        written = tuple(target for target in command.targets if target in self._script.written)
        placed = replace(command, folders=frozenset(self._script.folders), written=written)
        self._script.add(placed, self._variables)

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
