"""The configuration file of `luthien-asgi serve` and of `luthien_asgi.server:app`.

A file is read to its end: the error that `load` raises lists every problem, one `file:line: key: message` a line.

The top level holds `model_list` (LiteLLM's own shape), `policy`, `auth`, `operators`, `approvals`, `record`, `settings`,
`limits`, `paths` and `server`.
Sections of LiteLLM's own files that mean nothing here are ignored with a warning. `os.environ/NAME` stands for an environment
variable anywhere; the values of those variables are in no message.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, cast

from luthien_asgi.approvals import Approvals
from luthien_asgi.backend import LiteLLMBackend
from luthien_asgi.backend.models import Deployment, read_deployment
from luthien_asgi.clients import ClientKey
from luthien_asgi.compose import Composable, policies_of
from luthien_asgi.config_approvals import read_approvals
from luthien_asgi.config_classes import made
from luthien_asgi.config_keys import Keys, read_client_keys, read_operator_keys, warn_of_models
from luthien_asgi.config_models import read_models, warn_of_providers
from luthien_asgi.config_policies import read_policies
from luthien_asgi.config_schema import Section
from luthien_asgi.errors import ConfigError
from luthien_asgi.record_routes import RecordFinder
from luthien_asgi.recorder import NullRecorder, TransactionRecorder
from luthien_asgi.routes import Paths, Routes
from luthien_asgi.settings import Limits, StreamSettings
from luthien_asgi.yaml_lines import Document, read

__all__ = ["Config", "load"]

_SECTIONS: Final = ("model_list", "policy", "auth", "operators", "approvals", "record", "settings", "limits", "paths", "server")
_IN_CHARGE: Final = frozenset({"policy", "auth", "approvals", "operators", "record"})
"""Sections that mean something by being there: an empty one is one whose lines were lost."""
_LITELLM_SECTIONS: Final = ("litellm_settings", "router_settings", "general_settings", "environment_variables")
_RECORD_KEYS: Final = ("sink", "config", "content", "mask", "durability")
_CONTENTS: Final = ("full", "final", "hash")
_DURABILITIES: Final = ("relaxed", "strict")
_DEFAULT_SINK: Final = "luthien_asgi.jsonl.JsonlRecorder"
_ALIASES: Final = MappingProxyType(
    {"luthien_asgi.recorder.JsonlRecorder": _DEFAULT_SINK, "luthien_asgi.JsonlRecorder": _DEFAULT_SINK}
)
_SHORTEST_SECRET: Final = 6
"""Shorter values of variables are not masked in messages: `1` is in every one."""


_VERSION_LENGTH: Final = 12
_DEFAULT_PATHS: Final = Paths(models="/v1/models", health="/luthien/health")
_APPROVALS: Final = "/luthien/approvals"


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """A configuration that was checked as a whole."""

    file: str
    model_list: Sequence[Mapping[str, Any]] = field(repr=False)
    policy: Composable | None = None
    recorder: TransactionRecorder = field(default_factory=NullRecorder)
    auth: Sequence[str | ClientKey] | Keys | None = field(default=None, repr=False)
    """The clients' keys, or keys by name; None when there is no `auth` section."""
    operators: Sequence[str | ClientKey] | Keys | None = field(default=None, repr=False)
    """The operators' keys, or keys by name; None when there is no `operators` section."""
    approvals: Approvals | None = None
    settings: StreamSettings = field(default_factory=StreamSettings)
    limits: Limits = field(default_factory=Limits)
    paths: Paths = _DEFAULT_PATHS
    host: str = "127.0.0.1"
    port: int = 4000
    warnings: Sequence[str] = ()
    """What was ignored, as `file:line: key: message`."""
    contents: Mapping[str, str] = field(default_factory=dict, repr=False)
    """SHA-256 of each file that was read, by its path: the configuration's and those of keys."""
    texts: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What each of these files said."""
    read_at: int = field(default_factory=time.monotonic_ns, compare=False)
    """When they were read, or began to be, in nanoseconds of `time.monotonic_ns`."""
    record_section: str = field(default="", repr=False)
    """SHA-256 of all that the recorder was made of: two that are equal keep their records alike, in the same place."""

    @property
    def version(self) -> str:
        """What tells this configuration from others: a digest of the files, the same in every process."""
        return _digest([*self.contents.values()])[:_VERSION_LENGTH]

    @property
    def spends_server_keys(self) -> bool:
        """Whether a model is called with a credential of the server's, and not with the client's own."""
        return any(deployment.spends_key for deployment in self.deployments)

    @property
    def deployments(self) -> Sequence[Deployment]:
        """The models as the backend reads them."""
        return [read_deployment(entry, where=f"model_list[{number}]") for number, entry in enumerate(self.model_list)]


def load(
    path: str | Path,
    *,
    environ: Mapping[str, str] | None = None,
    kept: Mapping[str, str] = MappingProxyType({}),
) -> Config:
    """Read, check and build a configuration. Nothing is started and LiteLLM is not imported.

    `kept` is what files said earlier, as in `Config.texts`: these are not read again. Classes that the file names are imported
    and made. Raises `ConfigError` with all problems found.
    """
    read_at = time.monotonic_ns()
    document = read(Path(path), environ=os.environ if environ is None else environ, kept=kept)
    config = _config(Section(document, (), document.value))
    if document.problems:
        ordered = sorted(document.problems, key=lambda problem: problem.line)
        raise ConfigError("\n".join(_masked(problem.text(document.file), document) for problem in ordered))
    assert config is not None  # noqa: S101 - None is returned with a problem only
    return replace(config, read_at=read_at)


def _masked(text: str, document: Document) -> str:
    for reference, secret in document.secrets.items():
        if len(secret) >= _SHORTEST_SECRET:
            text = text.replace(secret, reference)
    return text


def _config(top: Section) -> Config | None:
    if top.value is None:
        top.problem("is empty: model_list is needed at least")
        return None
    sections = top.keys((*_SECTIONS, *_LITELLM_SECTIONS))
    if "model_list" not in sections and isinstance(top.value, dict):
        top.problem("model_list is missing: it says which models there are")
    for name in _IN_CHARGE & sections.keys():
        if sections[name].value is None:
            sections[name].problem("is empty: write what it is to say, or leave it out")
    absent = {name: Section(top.document) for name in _SECTIONS if name not in sections}
    given = {**sections, **absent}
    host, port = _server(given["server"])
    models = _models(sections)
    policies = read_policies(given["policy"])
    auth = _auth(given["auth"])
    operators = _operators(given["operators"], clients=auth)
    approvals = read_approvals(given["approvals"], clients=auth, operators=operators)
    if models:
        policies.check_needs(LiteLLMBackend(model_list=models), has_desk=given["approvals"].value is not None)
    recorder = _recorder(given["record"], policies.policy)
    if models and not top.document.problems:
        _warn(given["model_list"], given["auth"], models)
    return Config(
        file=top.document.file,
        model_list=models,
        policy=policies.policy,
        recorder=recorder,
        auth=auth,
        operators=operators,
        approvals=approvals,
        settings=given["settings"].dataclass(StreamSettings),
        limits=given["limits"].dataclass(Limits),
        paths=_paths(
            given["paths"],
            given["approvals"],
            operators=approvals is not None and approvals.auth is not None,
            lacking="approvals: {}" if operators else "approvals: {keys: {alice: os.environ/ALICES_KEY}}",
            no_records=_no_records(recorder, has_operators=operators is not None),
        ),
        host=host,
        port=port,
        warnings=(
            *(_ignored(sections[name]) for name in _LITELLM_SECTIONS if name in sections),
            *(_masked(warning.text(top.document.file), top.document) for warning in top.document.warnings),
        ),
        contents=top.document.contents,
        texts=top.document.texts,
        record_section=_digest(_made_of(given["record"], given["policy"])),
    )


def _warn(model_list: Section, auth: Section, models: Sequence[Mapping[str, Any]]) -> None:
    warn_of_providers(model_list)
    if auth.value is not None:
        warn_of_models(auth.child("keys"), [str(entry["model_name"]) for entry in models])


def _made_of(record: Section, policy: Section) -> list[Any]:
    """Return what a recorder is made of: its section, and the policies where they mask what it keeps."""
    masks = isinstance(record.value, dict) and record.value.get("mask")
    return [record.value, policy.value if masks else None]


def _digest(value: Any) -> str:  # noqa: ANN401 - YAML's values
    return sha256(json.dumps(value, sort_keys=True, default=repr).encode()).hexdigest()


def _models(sections: Mapping[str, Section]) -> Sequence[Mapping[str, Any]]:
    """Return the entries of `model_list`; none where something is wrong with one."""
    if "model_list" not in sections:
        return ()
    section = sections["model_list"]
    before = len(section.document.problems)
    models = read_models(section)
    is_good = len(section.document.problems) == before and not any(
        place[:1] == ("model_list",) for place in section.document.unresolved
    )
    return models if is_good else ()


def _ignored(section: Section) -> str:
    file, (name,) = section.document.file, section.place
    hint = "; for clients' keys write auth: {keys: [...]}" if name == "general_settings" else ""
    return f"{file}:{section.document.line_of(section.place)}: {name}: ignored: a section of the LiteLLM proxy{hint}"


def _lacking(cls: type[Any]) -> str:
    missing = [name for name in ("start", "begin", "end", "aclose") if not callable(getattr(cls, name, None))]
    return f"is not a recorder: it has no {', '.join(missing)}" if missing else ""


def _recorder(section: Section, policy: Composable | None) -> TransactionRecorder:
    if section.value is None:
        return NullRecorder()
    keys = section.keys(_RECORD_KEYS)
    content = keys["content"].choice(_CONTENTS) if "content" in keys else None
    more: dict[str, Any] = {"content": content} if content is not None else {}
    if "durability" in keys and (durability := keys["durability"].choice(_DURABILITIES)) is not None:
        more["durability"] = durability
    if "mask" in keys and (mask := _mask(keys["mask"], policy)) is not None:
        more["mask"] = mask
    sink = keys.get("sink") or Section(section.document, section.place, _DEFAULT_SINK)
    path = sink.text() if keys else None
    if path is None:
        return NullRecorder()
    recorder = made(sink, _ALIASES.get(path, path), keys.get("config"), lacking=_lacking, more=more)
    if recorder is None:
        return NullRecorder()
    if callable(why_not := getattr(recorder, "why_not", None)) and (reason := why_not()):
        section.problem(str(reason), at="config")
    return cast("TransactionRecorder", recorder)


def _mask(section: Section, policy: Composable | None) -> Callable[[str], str] | None:
    """Return what masks texts as the policies do that can; None where nothing is to be masked, or nobody can."""
    if not section.flag():
        return None
    found: list[Any] = [getattr(each, "mask", None) for each in policies_of(policy)]
    masks = cast("list[Callable[[str], str]]", [mask for mask in found if callable(mask)])
    if not masks:
        section.problem("no policy of this file masks anything (Redact does)")
        return None

    def masked(text: str) -> str:
        for mask in masks:
            text = mask(text)
        return text

    return masked


def _auth(section: Section) -> Keys | None:
    keys = _keys(section)
    return read_client_keys(keys) if keys is not None else None


def _operators(section: Section, *, clients: Keys | None) -> Keys | None:
    keys = _keys(section)
    return read_operator_keys(keys, clients=clients) if keys is not None else None


def _keys(section: Section) -> Section | None:
    if section.value is None:
        return None
    keys = section.keys(("keys",)).get("keys")
    if keys is None:
        section.problem("keys is missing: a list of keys, or keys by name")
    return keys


def _no_records(recorder: TransactionRecorder, *, has_operators: bool) -> str:
    """Return why nobody could look at records, or an empty text."""
    if not has_operators:
        return "nobody could look there: write operators: {keys: {alice: os.environ/ALICES_KEY}}"
    return "" if isinstance(recorder, RecordFinder) else "there is no record to look at: write record: {config: {path: …}}"


def _paths(section: Section, approvals: Section, *, operators: bool, lacking: str, no_records: str) -> Paths:
    default = replace(_DEFAULT_PATHS, approvals=_APPROVALS if operators else None)
    given = section.keys([each.name for each in fields(Paths)])
    for path in given.values():
        if path.value is not None and not (isinstance(path.value, str) and path.value.startswith("/")):
            path.problem(f"must begin with a slash, not {path.shown()}")
            return default
    # What is wrong with a section that is there has been said, an environment variable that is not set too.
    unsaid = approvals.value is None or not (section.document.problems or section.document.unresolved)
    if "approvals" in given and given["approvals"].value is not None and not operators and unsaid:
        given["approvals"].problem(f"nobody could answer there: write {lacking}")
    if "records" in given and given["records"].value is not None and unsaid and (reason := no_records):
        given["records"].problem(reason)
    paths = replace(default, **{name: path.value for name, path in given.items()})
    try:
        Routes(paths)
    except ConfigError as error:
        section.problem(str(error))
    return paths


def _server(section: Section) -> tuple[str, int]:
    keys = section.keys(("host", "port"))
    host = keys["host"].text() if "host" in keys else None
    port = keys["port"].number(whole=True) if "port" in keys else None
    if port is not None and not 0 <= port <= 65535:
        keys["port"].problem(f"must be a port, 0 to 65535, not {keys['port'].shown()}")
    return host or "127.0.0.1", 4000 if port is None else int(port)
