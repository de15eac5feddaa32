"""The configuration file: what is accepted, and how each mistake is told."""

# ruff: noqa: E501 - a case is one line: what is written, and what is said about it

from __future__ import annotations

import textwrap
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final

import pytest

from luthien_asgi import plugins
from luthien_asgi.compose import Governed
from luthien_asgi.config import Config, load
from luthien_asgi.errors import ConfigError
from luthien_asgi.jsonl import JsonlRecorder
from luthien_asgi.policies import DenyTools, ReplaceText
from luthien_asgi.policy import Policy
from luthien_asgi.recorder import Begin, MemoryRecorder, NullRecorder
from luthien_asgi.routes import Paths
from luthien_asgi.settings import Limits, StreamSettings

MODELS: Final = "model_list: [{model_name: fast, litellm_params: {model: openai/gpt-4o-mini}}]\n"
NOTHING: Final = MappingProxyType[str, str]({})


class Picky(Policy):
    """A policy whose constructor shows its argument when it refuses it."""

    def __init__(self, *, token: str, **more: Any) -> None:
        self.more = more
        if token != "good":
            raise ValueError(f"bad token {token}")


class Impossible(Policy):
    """A policy whose declaration makes no sense."""

    handles: ClassVar[Any] = {"text": "hold"}


def loaded(folder: Path, text: str, environ: Any = NOTHING) -> Config:
    file = folder / "luthien.yaml"
    file.write_text(textwrap.dedent(text), encoding="utf-8")
    return load(file, environ=environ)


def problems(folder: Path, text: str, environ: Any = NOTHING) -> list[str]:
    """Return the problems of a file, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, environ)
    return [line.removeprefix(f"{folder / 'luthien.yaml'}:") for line in str(caught.value).splitlines()]


def test_the_smallest_file_gives_the_defaults(tmp_path: Path) -> None:
    """A model list is enough."""
    config = loaded(tmp_path, MODELS)
    assert config.model_list == ({"model_name": "fast", "litellm_params": {"model": "openai/gpt-4o-mini"}},)
    assert (config.policy, config.auth, config.host, config.port) == (None, None, "127.0.0.1", 4000)
    assert (config.settings, config.limits, config.paths) == (
        StreamSettings(),
        Limits(),
        Paths(models="/v1/models", health="/luthien/health"),
    )
    assert isinstance(config.recorder, NullRecorder)
    assert config.warnings == ()


def test_every_section_arrives(tmp_path: Path) -> None:
    """What the file says is what the objects hold."""
    config = loaded(
        tmp_path,
        """
        model_list:
          - model_name: fast
            litellm_params: {model: openai/gpt-4o-mini, api_key: os.environ/PROVIDER_KEY, api_version: 2024-06-01}
            model_info: {mode: chat}
        policy:
          - class: luthien_asgi.policies.ReplaceText
            config: {replacements: [["foo", "bar"]]}
            mode: enforce
            on_error: block
            timeout: 7
        auth: {keys: {alice: os.environ/ALICE, bob: secret-of-bob}}
        record: {sink: luthien_asgi.recorder.MemoryRecorder}
        settings: {first_chunk_timeout: 60, openai_ping: off, queue_size: os.environ/SIZE, empty_notice: removed}
        limits: {streams: 5}
        paths: {chat: /llm/chat, models: null}
        server: {host: 0.0.0.0, port: os.environ/PORT}
        """,
        {"PROVIDER_KEY": "sk-provider", "ALICE": "secret-of-alice", "SIZE": "7", "PORT": "8080"},
    )
    assert config.model_list[0]["litellm_params"] == {
        "model": "openai/gpt-4o-mini",
        "api_key": "sk-provider",
        "api_version": "2024-06-01",
    }
    assert isinstance(config.policy, Governed)
    assert isinstance(config.policy.policy, ReplaceText)
    assert config.policy.policy.replacements == (("foo", "bar"),)
    assert (config.policy.mode, config.policy.on_error, config.policy.timeout) == ("enforce", "block", 7)
    assert config.auth == {"alice": "secret-of-alice", "bob": "secret-of-bob"}
    assert isinstance(config.recorder, MemoryRecorder)
    assert config.settings == StreamSettings(first_chunk_timeout=60, openai_ping="off", queue_size=7, empty_notice="removed")
    assert config.limits == Limits(streams=5)
    assert config.paths == Paths(chat="/llm/chat", models=None, health="/luthien/health")
    assert (config.host, config.port) == ("0.0.0.0", 8080)


@pytest.mark.parametrize("sink", ["sink: luthien_asgi.recorder.JsonlRecorder, ", "sink: luthien_asgi.jsonl.JsonlRecorder, ", ""])
def test_transactions_go_to_a_jsonl_file(tmp_path: Path, sink: str) -> None:
    """The recorder that ships is found beside the others, too, and is the one that is meant when none is named."""
    config = loaded(tmp_path, MODELS + f"record: {{{sink}config: {{path: {tmp_path / 'transactions.jsonl'}}}, content: hash}}")
    assert isinstance(config.recorder, JsonlRecorder)
    assert not (tmp_path / "transactions.jsonl").exists()


def test_credentials_are_not_in_the_representation(tmp_path: Path) -> None:
    """A configuration that is printed or logged shows no key."""
    shown = repr(
        loaded(
            tmp_path,
            "model_list: [{model_name: a, litellm_params: {model: b/c, api_key: sk-provider}}]\nauth: {keys: [sk-client]}",
        )
    )
    assert "sk-provider" not in shown
    assert "sk-client" not in shown


def test_a_single_policy_needs_no_list(tmp_path: Path) -> None:
    """One mapping is as good as a list of one."""
    config = loaded(tmp_path, MODELS + "policy: {class: luthien_asgi.policies.DenyTools, config: {names: [rm]}}")
    assert isinstance(config.policy, DenyTools)


@pytest.mark.parametrize(("written", "durable"), [("", False), (", durability: relaxed", False), (", durability: strict", True)])
def test_a_record_is_durable_where_the_file_says_so(tmp_path: Path, written: str, durable: bool) -> None:
    """Beside `content`; rotation is the recorder's own `config`."""
    config = loaded(tmp_path, MODELS + f"record: {{config: {{path: {tmp_path / 't.jsonl'}, max_bytes: 1000, keep: 3}}{written}}}")
    assert isinstance(config.recorder, JsonlRecorder)
    assert config.recorder.durable is durable


@pytest.mark.parametrize("written", ["policy: []", "record: {}", "settings:", "server: {}", "limits:"])
def test_an_empty_section_is_as_good_as_none(tmp_path: Path, written: str) -> None:
    """Where it can only set what has a default, or says itself that it is empty."""
    config = loaded(tmp_path, MODELS + written)
    assert (config.policy, config.auth, config.settings) == (None, None, StreamSettings())
    assert isinstance(config.recorder, NullRecorder)


def test_sections_of_litellm_are_ignored_with_a_warning(tmp_path: Path) -> None:
    """People bring the file they have; what has no meaning here is named."""
    config = loaded(tmp_path, MODELS + "router_settings: {num_retries: 2}\ngeneral_settings: {master_key: sk-1}\n")
    assert [warning.partition(":")[2] for warning in config.warnings] == [
        "2: router_settings: ignored: a section of the LiteLLM proxy",
        "3: general_settings: ignored: a section of the LiteLLM proxy; for clients' keys write auth: {keys: [...]}",
    ]


def test_all_problems_are_told_at_once_in_the_order_of_their_lines(tmp_path: Path) -> None:
    """Nobody has to run `check` once for each mistake."""
    assert problems(
        tmp_path,
        """\
        model_list:
          - model_nam: fast
        polcy: {}
        policy: {class: luthien_asgi.policies.UpperCase, mode: shaddow}
        settings: {stall_timeout: -1, queue_size: 1.5}
        """,
    ) == [
        "2: model_list[0].model_nam: unknown key; did you mean 'model_name'?",
        "2: model_list[0]: model_name is missing",
        "2: model_list[0]: litellm_params is missing",
        "3: polcy: unknown key; did you mean 'policy'?",
        "4: policy.mode: 'shaddow', expected one of enforce, shadow, off",
        "5: settings.queue_size: must be a whole number, not 1.5",
        "5: settings.stall_timeout: stall_timeout must be positive, not -1",
    ]


CASES: Final = [
    ("", "1: is empty: model_list is needed at least"),
    ("[1]", "1: must be a mapping, not a list"),
    ("settings: {}", "1: model_list is missing: it says which models there are"),
    ("model_list: []", "1: model_list: is empty: name one model at least"),
    ("model_list: {a: b}", "1: model_list: must be a list, not a mapping"),
    ("model_list: [x]", "1: model_list[0]: must be a mapping, not 'x'"),
    ("model_list: [{model_name: 4, litellm_params: {model: a/b}}]", "1: model_list[0].model_name: must be a string, not 4: quote it"),
    ("model_list: [{model_name: a, litellm_params: {}}]", "1: model_list[0].litellm_params: model is missing: the provider's model, as in openai/gpt-4o-mini"),
    ("model_list: [{model_name: a, litellm_params: }]", "1: model_list[0].litellm_params: model is missing: the provider's model, as in openai/gpt-4o-mini"),
    ("model_list: [{model_name: a, litellm_params: x}]", "1: model_list[0].litellm_params: must be a mapping, not 'x'"),
    ("model_list: [{model_name: a, litellm_params: {model: ' '}}]", "1: model_list[0].litellm_params.model: must be a string, not ' '"),
    ("model_list: [{model_name: a, litellm_params: {model: a/b}, passthrough: 1}]", "1: model_list[0]: passthrough must be true or false, not 1"),
    ("model_list: [{model_name: a, litellm_params: {model: a/b}, model_info: 1}]", "1: model_list[0].model_info: must be a mapping, not 1"),
    ("model_list: [{model_name: a, litellm_params: {model: a/b, api_bas: x}}]", "1: model_list[0].litellm_params.api_bas: unknown key; did you mean 'api_base'?"),
    ("model_list: [{model_name: a, litellm_params: {model: 'a/*'}}]", "1: model_list[0]: the model 'a/*' has more * than the model_name 'a'"),
    ("model_list: [{model_name: a, litellm_params: {model: openai/b}}, {model_name: a, litellm_params: {model: anthropic/b}}]", "1: model_list: the entries for model_name 'a' must agree in wire and passthrough"),
    (MODELS + "paths: {chat: /v1/messages}", "2: paths: the path of messages must begin with / and be its own, not '/v1/messages'"),
    (MODELS + f"policy: {{class: {__name__}.Impossible}}", "2: policy.class: Impossible.handles maps a BlockKind to Observe(), Transform() or Hold(), not 'text' to 'hold'"),
    (MODELS + "1: 2", "2: [1]: the key 1 is not a string: quote it"),
    (MODELS + "policy: 5", "2: policy: must be a mapping, not 5"),
    (MODELS + "policy: [~]", "2: policy[0]: must be a mapping, not nothing"),
    (MODELS + "policy: {class: luthien_asgi.polices.X}", "2: policy.class: there is no module 'luthien_asgi.polices'"),
    (MODELS + "policy: {class: luthien_asgi.policies.UperCase}", "2: policy.class: the module luthien_asgi.policies has no 'UperCase'; did you mean 'UpperCase'?"),
    (MODELS + "policy: {class: luthien_asgi.config.load}", "2: policy.class: luthien_asgi.config.load is not a class"),
    (MODELS + "policy: {class: pathlib.Path}", "2: policy.class: pathlib.Path is not a Policy: make it a subclass of luthien_asgi.Policy"),
    (MODELS + "policy: {class: luthien_asgi.policies.ReplaceText}", "2: policy.class: ReplaceText needs 'replacements'"),
    (MODELS + "policy:\n  class: luthien_asgi.policies.DenyTools\n  config:\n    nams: [a]", "5: policy.config.nams: DenyTools takes no 'nams'; did you mean 'names'?"),
    (MODELS + "policy: {class: luthien_asgi.policies.DenyTools, config: {names: rm}}", "2: policy.config.names: must be a list, not 'rm'"),
    (MODELS + "policy: {class: luthien_asgi.policies.UpperCase, config: {1: 2}}", "2: policy.config[1]: the key 1 is not a string: quote it"),
    (MODELS + "auth: {}", "2: auth: keys is missing: a list of keys, or keys by name"),
    (MODELS + "auth: {keys: []}", "2: auth.keys: is empty: nobody could come in"),
    (MODELS + "auth: {keys: {}}", "2: auth.keys: is empty: nobody could come in"),
    (MODELS + "auth: {keys: secret}", "2: auth.keys: must be a list, not 'secret'"),
    (MODELS + "auth: {keys: [123456]}", "2: auth.keys[0]: a key must be a string that is not blank: quote it"),
    (MODELS + "auth: {keys: {a: same, b: same}}", "2: auth.keys.b: the same key is there twice"),
    (MODELS + "record: {sink: pathlib.Path}", "2: record.sink: pathlib.Path is not a recorder: it has no start, begin, end, aclose"),
    (MODELS + "record: {sink: luthien_asgi.recorder.MemoryRecorder, content: all}", "2: record.content: 'all', expected one of full, final, hash"),
    (MODELS + "record: {config: {path: x}, mask: 1}", "2: record.mask: must be true or false, not 1"),
    (MODELS + "record: {config: {path: x}, mask: true}", "2: record.mask: no policy of this file masks anything (Redact does)"),
    (MODELS + "record: {sink: luthien_asgi.recorder.MemoryRecorder, content: hash}", "2: record.sink: MemoryRecorder takes no 'content'"),
    (MODELS + "record: {config: {path: x}, durability: sure}", "2: record.durability: 'sure', expected one of relaxed, strict"),
    (MODELS + "record: {sink: luthien_asgi.recorder.MemoryRecorder, durability: strict}", "2: record.sink: MemoryRecorder takes no 'durability'"),
    (MODELS + "settings: {stall_timout: 3}", "2: settings.stall_timout: unknown key; did you mean 'stall_timeout'?"),
    (MODELS + "settings: {openai_ping: dot}", "2: settings.openai_ping: openai_ping must be comment, chunk or off, not 'dot'"),
    (MODELS + "settings: {empty_notice: ''}", "2: settings.empty_notice: must be a string, not ''"),
    (MODELS + "limits: {streams: 0}", "2: limits.streams: streams must be a positive whole number, not 0"),
    (MODELS + "paths: {chat: chat}", "2: paths.chat: must begin with a slash, not 'chat'"),
    (MODELS + "server: {port: 70000}", "2: server.port: must be a port, 0 to 65535, not 70000"),
    (MODELS + "server: {host: 1}", "2: server.host: must be a string, not 1: quote it"),
    (MODELS + "a: 1\na: 2", "3: a: is there twice; the first is in line 2"),
    (MODELS + "settings: &s\n  stall_timeout: [*s]", "2: an alias that contains itself"),
    (MODELS + "settings: {<<: 1}", "2: settings.<<: can merge mappings only"),
    (MODELS + "settings: {[1]: 2}", "2: settings: a key must be a plain value, not a list or a mapping"),
    (MODELS + "policy: !!python/object:os.system {}", "2: policy: the tag tag:yaml.org,2002:python/object:os.system is not supported: plain values only"),
    (MODELS + "policy: !!int x", "2: policy: 'x' does not fit its type int"),
    (MODELS + "policy:\n\tclass: x", "3: is not YAML: a tab where YAML wants spaces"),
    (MODELS + "policy: {class: x", "2: is not YAML: expected ',' or '}', but got '<stream end>'"),
    (MODELS + "---\na: 1", "2: is not YAML: but found another document"),
    (MODELS + "policy: os.environ/POLICY", "2: policy: the environment variable POLICY is not set"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[case[1] for case in CASES])
def test_a_mistake_is_told_with_its_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    """Each message begins with the line, names the key and says what to write."""
    assert expected in problems(tmp_path, text)


def test_a_missing_variable_is_one_problem_with_its_name_and_line(tmp_path: Path) -> None:
    """Where a variable is missing nothing else is said about the place."""
    text = (
        MODELS
        + "policy: {class: luthien_asgi.policies.DenyTools, config: {names: os.environ/NAMES}}\nserver: {port: os.environ/PORT}"
    )
    assert problems(tmp_path, text, {"PORT": ""}) == [
        "2: policy.config.names: the environment variable NAMES is not set",
        "3: server.port: the environment variable PORT is empty",
    ]


def test_values_of_variables_are_in_no_message(tmp_path: Path) -> None:
    """Not as a number that is none, and not in what a constructor says."""
    text = MODELS + (
        f"policy: {{class: {__name__}.Picky, config: {{token: os.environ/TOKEN}}}}\n"
        "server: {port: os.environ/TOKEN}\nsettings: {openai_ping: os.environ/TOKEN}"
    )
    found = problems(tmp_path, text, {"TOKEN": "very-secret"})
    assert found == [
        "2: policy.config: Picky: bad token os.environ/TOKEN",
        "3: server.port: must be a whole number, not the variable's value",
        "4: settings.openai_ping: openai_ping must be comment, chunk or off, not 'os.environ/TOKEN'",
    ]


def test_a_constructor_that_takes_everything_is_given_everything(tmp_path: Path) -> None:
    """`**more` in a constructor turns the check for unknown names off."""
    config = loaded(tmp_path, MODELS + f"policy: {{class: {__name__}.Picky, config: {{token: good, anything: 1}}}}")
    assert isinstance(config.policy, Picky)
    assert config.policy.more == {"anything": 1}


def test_aliases_and_merge_keys_are_followed(tmp_path: Path) -> None:
    """What is written in a mapping wins over what is merged into it, the earlier over the later."""
    config = loaded(
        tmp_path,
        """
        model_list:
          - &first {model_name: a, litellm_params: &params {model: openai/a, rpm: 1, tpm: 1}}
          - {<<: *first, model_name: b}
          - {model_name: c, litellm_params: {tpm: 2, <<: [{rpm: 3}, *params]}}
        """,
    )
    assert config.model_list == (
        {"model_name": "a", "litellm_params": {"model": "openai/a", "rpm": 1, "tpm": 1}},
        {"model_name": "b", "litellm_params": {"model": "openai/a", "rpm": 1, "tpm": 1}},
        {"model_name": "c", "litellm_params": {"model": "openai/a", "rpm": 3, "tpm": 2}},
    )


def test_aliases_that_multiply_are_refused(tmp_path: Path) -> None:
    """Nine lines must not become a billion values."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (problem,) = problems(tmp_path, MODELS + "\n".join(lines))
    assert "more than 100000 values, aliases counted each time" in problem


def test_a_file_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    """A recursion limit is a message, not a traceback."""
    assert problems(tmp_path, "a: " + "[" * 5000) == [" is nested too deeply"]


def test_a_file_that_is_too_large_is_refused(tmp_path: Path) -> None:
    """A megabyte is more than anybody writes."""
    (problem,) = problems(tmp_path, "#" * (1024 * 1024 + 1))
    assert problem.endswith("is longer than 1048576 bytes")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    """The message is the system's, without a traceback."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file or directory"):
        load(tmp_path / "nowhere.yaml")


def test_bytes_that_are_not_text_are_told_with_their_line(tmp_path: Path) -> None:
    """Both what is not UTF-8 and what YAML does not allow."""
    file = tmp_path / "luthien.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match=r"luthien\.yaml:2: is not UTF-8"):
        load(file)
    file.write_bytes(b"a: \x07\n")
    with pytest.raises(ConfigError, match=r"luthien\.yaml: is not YAML"):
        load(file)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    """Editors on Windows write one."""
    file = tmp_path / "luthien.yaml"
    file.write_bytes(b"\xef\xbb\xbf" + MODELS.encode())
    assert load(file).model_list


@pytest.mark.parametrize(
    ("models", "spends"),
    [
        ("[{model_name: a, litellm_params: {model: x/y}}]", True),
        ("[{model_name: a, litellm_params: {model: x/y}, passthrough: true}]", False),
        ("[{model_name: a, litellm_params: {model: hosted_vllm/y}}]", False),
        (
            "[{model_name: a, litellm_params: {model: x/y}, passthrough: true}, {model_name: b, litellm_params: {model: x/y}}]",
            True,
        ),
    ],
)
def test_a_server_key_is_spent_unless_every_model_is_passthrough(tmp_path: Path, models: str, spends: bool) -> None:
    """A model without a key of its own counts: LiteLLM finds one in the environment."""
    assert loaded(tmp_path, f"model_list: {models}").spends_server_keys is spends


def test_a_module_that_fails_when_imported_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the module raised is in the message; a module that it misses is not mistaken for itself."""
    (tmp_path / "luthien_broken.py").write_text("1 / 0")
    (tmp_path / "luthien_lacking.py").write_text("import luthien_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(plugins.PluginError, match="'luthien_broken' cannot be imported: ZeroDivisionError: division by zero"):
        plugins.find("luthien_broken.Policy")
    with pytest.raises(plugins.PluginError, match="'luthien_lacking' cannot be imported: No module named 'luthien_not_there'"):
        plugins.find("luthien_lacking.Policy")


def test_a_record_that_could_not_be_opened_is_a_problem_with_its_line(tmp_path: Path) -> None:
    """What `serve` would stumble over, `check` says."""
    config = tmp_path / "luthien.yaml"
    config.write_text(
        "model_list:\n  - {model_name: a, litellm_params: {model: openai/x, api_key: some-long-key}}\n"
        f"record:\n  config:\n    path: {tmp_path}/nowhere/t.jsonl\n"
    )
    with pytest.raises(ConfigError, match=r"luthien\.yaml:4: record\.config: path: the folder .* is not there"):
        load(config)


async def test_a_record_is_masked_as_the_policies_of_the_file_do_it(tmp_path: Path) -> None:
    """Wherever in a composition they are; the file of the record has no byte of the value."""
    record = tmp_path / "transactions.jsonl"
    policy = "policy: [{class: UpperCase}, {together: [{class: Redact, config: {key: 'a key of one kind'}}]}]"
    config = loaded(tmp_path, f"{MODELS}{policy}\nrecord: {{config: {{path: {record}}}, mask: true}}")
    recorder = config.recorder
    begin = Begin(
        id="t",
        at=0,
        wire="openai",
        path="/",
        model="m",
        stream=False,
        client="",
        request={"messages": [{"role": "user", "content": "write to alice@example.com"}]},
    )
    await recorder.start()
    await recorder.begin(begin)
    await recorder.aclose()
    assert "alice" not in record.read_text()
    assert "write to [EMAIL_" in record.read_text()


@pytest.mark.parametrize("section", ["policy", "auth", "approvals", "operators", "record"])
def test_an_empty_section_that_would_be_in_charge_is_a_problem(tmp_path: Path, section: str) -> None:
    """Its lines were commented out, or are indented wrongly: without a word nobody would be in charge."""
    file = tmp_path / "luthien.yaml"
    file.write_text(f"model_list:\n  - {{model_name: m, litellm_params: {{model: openai/m, api_key: k}}}}\n{section}:\n")
    with pytest.raises(ConfigError, match=f"luthien.yaml:3: {section}: is empty: write what it is to say, or leave it out"):
        load(file)


def test_a_backspace_in_a_pattern_is_a_problem(tmp_path: Path) -> None:
    r"""In double quotes `\b` is a backspace to YAML, and the pattern would match nothing."""
    file = tmp_path / "luthien.yaml"
    policy = 'policy:\n  class: DenyTools\n  config:\n    patterns:\n      bash: "\\brm"\n'
    file.write_text(f"model_list:\n  - {{model_name: m, litellm_params: {{model: openai/m, api_key: k}}}}\n{policy}")
    with pytest.raises(ConfigError, match=r"luthien.yaml:7: policy.config.patterns.bash: holds a backspace"):
        load(file)
