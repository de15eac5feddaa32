"""The section `policy`: one policy or several, how each is in charge, what each takes, and how every mistake is told."""

# ruff: noqa: E501 - a case is one line: what is written, and what is said about it

from __future__ import annotations

import textwrap
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, Final, Literal, TypedDict

import pytest

from luthien_asgi import Block, BlockKind, Chain, ChatRequest, Deny, Escalate, Governed, Hold, Policy, PolicyContext, Together
from luthien_asgi.compose import Composable
from luthien_asgi.config import Config, load
from luthien_asgi.errors import ConfigError
from luthien_asgi.policies import DenyTools, ReplaceText, UpperCase

MODELS: Final = "model_list: [{model_name: fast, litellm_params: {model: openai/gpt-4o-mini}}]\n"
NOTHING: Final = MappingProxyType[str, str]({})
HERE: Final = __name__


class Judge(Policy):
    """Hold calls."""

    handles: ClassVar[Mapping[BlockKind, Hold]] = {BlockKind.TOOL_CALL: Hold()}

    def on_block_complete(self, block: Block, ctx: Any) -> None:
        return None


class Asks(Judge):
    """Ask a model."""

    def __init__(self, *, model: str = "fast") -> None:
        self.asks = (model,)


class Escalates(Judge):
    """Ask a person."""

    verdicts: ClassVar[Collection[type[Any]]] = (Escalate, Deny)


class Denies(Judge):
    """Allow or deny."""

    verdicts: ClassVar[Collection[type[Any]]] = (Deny,)


class Checks(Policy):
    """See requests."""

    def on_request(self, request: ChatRequest, ctx: PolicyContext) -> None:
        return None


class Rule(TypedDict, total=False):
    """One rule."""

    name: str
    level: int


class Typed(Policy):
    """Take one of everything."""

    def __init__(
        self,
        *,
        word: str = "",
        count: int = 0,
        share: float = 0.5,
        switch: bool = False,
        mode: Literal["on", "off", "auto"] = "auto",
        names: Sequence[str] | None = None,
        limits: Mapping[str, int] = MappingProxyType({}),
        pair: tuple[str, int] = ("a", 1),
        either: str | Sequence[str] = "",
        entries: Sequence[Sequence[str] | Mapping[str, Any]] = (),
        rules: Sequence[Rule] = (),
        anything: Any = None,
    ) -> None:
        self.given = {name: value for name, value in locals().items() if name not in {"self", "__class__"}}


class Breaks(Policy):
    """Fail in a way that nobody expects."""

    def __init__(self, *, how: str) -> None:
        if how == "import":
            raise ImportError("this policy needs pip install 'luthien-asgi[shell]'")
        raise RuntimeError("out of luck")


def loaded(folder: Path, text: str, environ: Any = NOTHING) -> Config:
    file = folder / "luthien.yaml"
    file.write_text(MODELS + textwrap.dedent(text), encoding="utf-8")
    return load(file, environ=environ)


def problems(folder: Path, text: str, environ: Any = NOTHING) -> list[str]:
    """Return the problems of a file, without the file's name."""
    with pytest.raises(ConfigError) as caught:
        loaded(folder, text, environ)
    return [line.removeprefix(f"{folder / 'luthien.yaml'}:") for line in str(caught.value).splitlines()]


def tree(policy: Composable | None) -> Any:
    """Return a policy as plain values."""
    if isinstance(policy, Governed):
        return policy.mode, policy.on_error, policy.timeout, policy.concurrent, tree(policy.policy)
    if isinstance(policy, Chain | Together):
        return [type(policy).__name__, *map(tree, policy.policies)]
    return type(policy).__name__


# --- what is composed -------------------------------------------------------------------------------------------------------


def test_a_list_is_a_chain_and_nests_to_any_depth(tmp_path: Path) -> None:
    """In the order of the file; each level has settings of its own."""
    config = loaded(
        tmp_path,
        f"""
        policy:
          - {{class: ReplaceText, config: {{replacements: [[foo, bar]]}}, on_error: pass}}
          - together:
              - {{class: DenyTools, config: {{names: [rm]}}}}
              - chain:
                  - {{class: {HERE}.Denies, timeout: 2.5}}
                  - {{class: {HERE}.Judge, mode: shadow}}
            timeout: 7
          - chain: [{{class: {HERE}.Checks}}]
            concurrent: true
            mode: off
        """,
    )
    assert tree(config.policy) == [
        "Chain",
        (None, "pass", None, None, "ReplaceText"),
        (
            None, None, 7, None,
            ["Together", "DenyTools", ["Chain", (None, None, 2.5, None, "Denies"), ("shadow", None, None, None, "Judge")]],
        ),
        ("off", None, None, True, "Checks"),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["UpperCase", "luthien_asgi.policies.UpperCase", "luthien_asgi.policies.upper_case.UpperCase"])
def test_what_ships_is_named_by_its_own_name_or_by_its_path(tmp_path: Path, name: str) -> None:
    """All three are the same class."""
    assert type(loaded(tmp_path, f"policy: {{class: {name}}}").policy) is UpperCase


@pytest.mark.parametrize("written", ["", "policy: []"])
def test_no_policy_at_all(tmp_path: Path, written: str) -> None:
    """Everything passes."""
    assert loaded(tmp_path, written).policy is None


def test_a_list_of_one_is_that_one(tmp_path: Path) -> None:
    """Nothing is around it."""
    assert type(loaded(tmp_path, "policy: [{class: DenyTools, config: {names: [rm]}}]").policy) is DenyTools
    assert type(loaded(tmp_path, "policy: {chain: [{together: [{class: UpperCase}]}]}").policy) is UpperCase


@pytest.mark.parametrize("mode", ["off", "'off'", "shadow", "enforce"])
def test_a_mode_is_a_word(tmp_path: Path, mode: str) -> None:
    """A bare `off`, which YAML reads as false, too."""
    policy = loaded(tmp_path, f"policy: {{class: UpperCase, mode: {mode}}}").policy
    assert isinstance(policy, Governed)
    assert policy.mode == mode.strip("'")


# --- what a policy takes ----------------------------------------------------------------------------------------------------


def test_values_arrive_as_they_are_meant(tmp_path: Path) -> None:
    """Numbers and truth values of the environment too, and YAML's bare `off` where a word is meant."""
    policy = loaded(
        tmp_path,
        f"""
        policy:
          class: {HERE}.Typed
          config:
            word: os.environ/COUNT
            count: os.environ/COUNT
            share: os.environ/COUNT
            switch: os.environ/SWITCH
            mode: off
            names:
            limits: {{a: os.environ/COUNT}}
            pair: [b, 2]
            either: [x, y]
            entries: [[a, b], {{old: a}}]
            rules: [{{name: a, level: 3}}, {{}}]
            anything: {{a: [1, {{}}]}}
        """,
        {"COUNT": "7", "SWITCH": "true"},
    ).policy
    assert isinstance(policy, Typed)
    assert policy.given == {
        "word": "7", "count": 7, "share": 7.0, "switch": True, "mode": "off", "names": None, "limits": {"a": 7}, "pair": ["b", 2],
        "either": ["x", "y"], "entries": [["a", "b"], {"old": "a"}], "rules": [{"name": "a", "level": 3}, {}],
        "anything": {"a": [1, {}]},
    }  # fmt: skip


CASES: Final = [
    ("{config: {}}", "2: policy: class is missing (or chain, or together)"),
    ("{clas: UpperCase}", "2: policy.clas: unknown key; did you mean 'class'?"),
    ("{class: UperCase}", "2: policy.class: no policy that ships is called 'UperCase' (one of yours is module.Class); did you mean 'UpperCase'?"),
    ("{class: UpperCase, chain: []}", "2: policy: class and chain are there, and an entry is one of them"),
    ("{chain: []}", "2: policy.chain: is empty: nothing would be in charge"),
    ("{together: {class: UpperCase}}", "2: policy.together: must be a list, not a mapping"),
    ("{chain: [{class: UpperCase}], config: {}}", "2: policy.config: belongs to a class, not to chain"),
    ("[[{class: UpperCase}]]", "2: policy[0]: must be a mapping, not a list"),
    ("{chain: [~]}", "2: policy.chain[0]: must be a mapping, not nothing"),
    ("{class: 5}", "2: policy.class: must be a string, not 5: quote it"),
    ("{class: UpperCase, mode: shaddow}", "2: policy.mode: 'shaddow', expected one of enforce, shadow, off"),
    ("{class: UpperCase, on_error: allow}", "2: policy.on_error: 'allow', expected one of block, pass"),
    ("{class: UpperCase, timeout: 0}", "2: policy.timeout: must be positive, not 0"),
    ("{class: UpperCase, timeout: .inf}", "2: policy.timeout: must be positive, not inf"),
    ("{class: UpperCase, timeout: soon}", "2: policy.timeout: must be a number, not 'soon'"),
    ("{class: UpperCase, timeout: true}", "2: policy.timeout: must be a number, not True"),
    ("{class: UpperCase, concurrent: 1}", "2: policy.concurrent: must be true or false, not 1"),
    ("{class: UpperCase, concurrent: true}", "2: policy.concurrent: UpperCase has no on_request: there is nothing to run beside the call of the backend (concurrent)"),
    ("{together: [{class: UpperCase}, {class: " + HERE + ".Judge}]}", "2: policy.together: UpperCase changes text as it flows, and those beside it would not see that: it belongs into a Chain"),
    ("{together: [{class: " + HERE + ".Judge}, {class: " + HERE + ".Judge}]}", "2: policy.together: of Judge and Judge, two may replace a tool_call block at the same time, and only one can: let their `verdicts` name what they return (without Replace), or put them into a Chain"),
    ("{class: " + HERE + ".Asks, config: {model: slow}}", "2: policy.class: Asks asks the model 'slow', which is not configured"),
    ("[{class: UpperCase}, {class: " + HERE + ".Escalates}]", "2: policy[1].class: Escalates may ask a person, and there is nobody to ask: give approvals=Approvals(...), or an approvals section (beside operators, approvals: {} is enough)"),
    ("{class: " + HERE + ".Breaks, config: {how: import}}", "2: policy.config: Breaks: this policy needs pip install 'luthien-asgi[shell]'"),
    ("{class: " + HERE + ".Breaks, config: {how: other}}", "2: policy.config: Breaks: RuntimeError: out of luck"),
    ("{class: DenyTools, config: [a]}", "2: policy.config: must be a mapping, not a list"),
    ("{class: os.environ/GONE}", "2: policy.class: the environment variable GONE is not set"),
    ("{class: LimitOutput}", "2: policy.class: LimitOutput: give tokens, tool_calls, blocks or max_tokens: without any of them nothing is limited"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), CASES, ids=[case[1] for case in CASES])
def test_a_mistake_is_told_with_its_line_and_key(tmp_path: Path, text: str, expected: str) -> None:
    """Each message begins with the line, names the key and says what to write; it is the only one."""
    found = problems(tmp_path, f"policy: {text}")
    assert expected in found
    assert len(found) == (2 if "unknown key" in expected else 1)


VALUES: Final = [
    ("word: 5", "word: must be a string, not 5: quote it"),
    ("word: [a]", "word: must be a string, not a list"),
    ("word: os.environ/GONE", "word: the environment variable GONE is not set"),
    ("count: 1.5", "count: must be a whole number, not 1.5"),
    ("count: true", "count: must be a whole number, not True"),
    ("count: os.environ/WORD", "count: must be a whole number, not the variable's value"),
    ("share: half", "share: must be a number, not 'half'"),
    ("switch: 'yes'", "switch: must be true or false, not 'yes'"),
    ("switch: os.environ/WORD", "switch: must be true or false, not the variable's value"),
    ("mode: of", "mode: 'of', expected one of on, off, auto"),
    ("mode: os.environ/WORD", "mode: the variable's value, expected one of on, off, auto"),
    ("mode: [on]", "mode: a list, expected one of on, off, auto"),
    ("names: rm", "names: must be a list, not 'rm'"),
    ("names: [a, 5]", "names[1]: must be a string, not 5: quote it"),
    ("limits: []", "limits: must be a mapping, not a list"),
    ("limits: {a: b}", "limits.a: must be a whole number, not 'b'"),
    ("limits: {1: 1}", "limits[1]: the key 1 is not a string: quote it"),
    ("pair: [a]", "pair: must have 2 items, not 1"),
    ("pair: [a, b]", "pair[1]: must be a whole number, not 'b'"),
    ("either: 5", "either: must be a string or a list, not 5: quote it"),
    ("either: [5]", "either[0]: must be a string, not 5: quote it"),
    ("entries: [[a, 1]]", "entries[0][1]: must be a string, not 1: quote it"),
    ("entries: [5]", "entries[0]: must be a list or a mapping, not 5"),
    ("rules: [{nam: a}]", "rules[0].nam: unknown key; did you mean 'name'?"),
    ("rules: [{level: high}]", "rules[0].level: must be a whole number, not 'high'"),
    ("cuont: 1", "cuont: Typed takes no 'cuont'; did you mean 'count'?"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), VALUES, ids=[case[1] for case in VALUES])
def test_a_value_that_does_not_fit_is_told_at_its_line(tmp_path: Path, text: str, expected: str) -> None:
    """Before the constructor sees it, and once."""
    found = problems(tmp_path, f"policy:\n  class: {HERE}.Typed\n  config:\n    {text}\n", {"WORD": "very-secret"})
    assert found == [f"5: policy.config.{expected}"]


def test_all_problems_of_all_policies_are_told(tmp_path: Path) -> None:
    """A broken neighbour hides nothing, and what is around a broken one says nothing more."""
    assert problems(
        tmp_path,
        f"""\
        policy:
          - {{class: UperCase}}
          - together:
              - {{class: {HERE}.Asks, config: {{model: gone}}}}
              - {{class: DenyTools, config: {{names: 5}}, mode: on}}
          - {{class: {HERE}.Escalates}}
        """,
    ) == [
        "3: policy[0].class: no policy that ships is called 'UperCase' (one of yours is module.Class); did you mean 'UpperCase'?",
        "5: policy[1].together[0].class: Asks asks the model 'gone', which is not configured",
        "6: policy[1].together[1].config.names: must be a list, not 5",
        "6: policy[1].together[1].mode: True, expected one of enforce, shadow, off",
        "7: policy[2].class: Escalates may ask a person, and there is nobody to ask: give approvals=Approvals(...), or an approvals section (beside operators, approvals: {} is enough)",
    ]


def test_somebody_to_ask_is_enough(tmp_path: Path) -> None:
    """A section for approvals, even one with a mistake, is somebody."""
    text = f"policy: {{class: {HERE}.Escalates}}\napprovals: {{keys: {{alice: a-key-of-alice}}, timeout: TIMEOUT}}"
    assert type(loaded(tmp_path, text.replace("TIMEOUT", "5")).policy) is Escalates
    assert problems(tmp_path, text.replace("TIMEOUT", "-5")) == ["3: approvals.timeout: must be positive, not -5"]


@pytest.mark.parametrize("around", ["{class: CLASS, mode: MODE}", "{chain: [{class: CLASS}], mode: MODE}"])
def test_what_is_off_needs_nobody(tmp_path: Path, around: str) -> None:
    """In shadow a person is not asked, and a model is."""
    written = f"policy: {around}".replace("CLASS", f"{HERE}.Escalates")
    assert loaded(tmp_path, written.replace("MODE", "off")).policy is not None
    assert loaded(tmp_path, written.replace("MODE", "shadow")).policy is not None
    asking = written.replace("{class: " + HERE + ".Escalates", "{class: " + HERE + ".Asks, config: {model: gone}")
    assert loaded(tmp_path, asking.replace("MODE", "off")).policy is not None
    assert len(problems(tmp_path, asking.replace("MODE", "shadow"))) == 1


def test_models_with_a_problem_are_not_looked_up(tmp_path: Path) -> None:
    """One mistake, one message."""
    file = tmp_path / "luthien.yaml"
    file.write_text(f"model_list: [{{model_name: slow}}]\npolicy: {{class: {HERE}.Asks}}")
    with pytest.raises(ConfigError) as caught:
        load(file, environ={})
    assert str(caught.value) == f"{file}:1: model_list[0]: litellm_params is missing"


def test_replacements_are_checked_in_their_depth(tmp_path: Path) -> None:
    """A policy that ships has its annotations for this."""
    assert problems(tmp_path, "policy:\n  class: ReplaceText\n  config:\n    replacements:\n      - [a, b]\n      - [a, 5]") == [
        "7: policy.config.replacements[1][1]: must be a string, not 5: quote it"
    ]
    assert isinstance(loaded(tmp_path, "policy: {class: ReplaceText, config: {replacements: [[a, b]]}}").policy, ReplaceText)
