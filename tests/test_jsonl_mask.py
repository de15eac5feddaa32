"""A mask of a record: nothing that a client, a model or a hook wrote is in the file without it, however it was written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi import Begin, Block, BlockKind, End, KeyAuth, LuthienMiddleware, MemoryRecorder, Paths, TransactionRecorder
from luthien_asgi.json_strings import LEFT_OUT, changed_deeply
from luthien_asgi.jsonl import JsonlRecorder, read_transactions
from luthien_asgi.jsonl_lines import Content, Lines
from luthien_asgi.jsonl_mask import FAILED, MASK_TIME, NO_TIME, masked
from luthien_asgi.policies import Redact
from luthien_asgi.recorder import ModelCall, SampleRecord, Transaction, VerdictRecord
from luthien_asgi.testing import ASGIDriver, ScriptedBackend, Text, Thinking, ToolCall, chunks

OPENAI, ANTHROPIC, RESPONSES = "/v1/chat/completions", "/v1/messages", "/v1/responses"
KEY: Final = "sk-ant-api03-a1B2c3D4e5F6g7H8i9J0"
LINK: Final = "https://bob:hunter2hunter@db.example/x"
"""A value with slashes, of which `hunter2hunter` is the secret."""
SECRET: Final = re.compile("a1B2c3D4|e5F6g7H8|J0$|hunter2")


def mask(text: str) -> str:
    return redact.mask(text)


redact = Redact(key="a key of one kind")


def all_escaped(text: str) -> str:
    return "".join(f"\\u{ord(character):04x}" for character in text)


def first_escaped(text: str) -> str:
    return f"\\u{ord(text[0]):04x}{text[1:]}"


def middle_escaped(text: str) -> str:
    return text[:25] + all_escaped(text[25]) + text[26:]


def nested(text: str, levels: int) -> str:
    for _ in range(levels):
        text = json.dumps({"inner": text, "n": 1})
    return text


FORMS: Final[Mapping[str, Callable[[str], str]]] = {
    "plain": lambda text: text,
    "among words": lambda text: f'He said "{text}", and went.',
    "a value": lambda text: json.dumps({"command": "run", "key": text}),
    "a name": lambda text: json.dumps({text: 1}),
    "in a list": lambda text: json.dumps([[{"a": [text]}]]),
    "a string": json.dumps,
    "the first character escaped": lambda text: f'{{"key": "{first_escaped(text)}"}}',
    "a character in the middle escaped": lambda text: f'{{"key": "{middle_escaped(text)}"}}',
    "all escaped": lambda text: f'{{"key": "{all_escaped(text)}"}}',
    "capital digits": lambda text: f'{{"key": "{re.sub("u(....)", lambda found: "u" + found[1].upper(), all_escaped(text))}"}}',
    "a name escaped": lambda text: f'{{"{all_escaped(text)}": true}}',
    "slashes escaped": lambda text: json.dumps({"key": text}).replace("/", "\\/"),
    "cut": lambda text: f'{{"key": "{first_escaped(text)}", "cut": "',
    "cut in the middle": lambda text: f'{{"key": "{middle_escaped(text)}", "cut": "',
    "cut, slashes": lambda text: f'{{"key": "{text}", "cut": "'.replace("/", "\\/"),
    "quoted": lambda text: f'The tool said: {{"key": "{middle_escaped(text)}"}}\nand ended.',
    "lines": lambda text: f'{{"a": 1}}\n{{"key": "{middle_escaped(text)}"}}\n',
    "events": lambda text: f'data: {{"key": "{all_escaped(text)}"}}\n\ndata: [DONE]\n\n',
    "JSON in JSON": lambda text: nested(text, 2),
    "JSON in JSON in JSON": lambda text: nested(f'{{"key": "{middle_escaped(text)}"}}', 3),
    "escaped twice, cut": lambda text: nested(middle_escaped(text), 2)[:-1],
    "escaped twice, as an escaped backslash": lambda text: f'{{"key": "{middle_escaped(text)}'.replace("\\", "\\u005c"),
    "beside another": lambda text: f'["{LINK}", "{middle_escaped(text)}", {text!r}',
    "after a backslash": lambda text: f"C:\\{text} \\n{text}\\t{middle_escaped(text)}",
    "so deep that nobody looks": lambda text: nested(middle_escaped(text), 10),
}


def readings(text: str) -> Iterator[str]:
    """Yield a text as it is, and as one reads it who takes escapes away, again and again."""
    for _ in range(20):
        yield text
        text = re.sub(r'\\(?:u([0-9a-fA-F]{4})|([\\/"]))', lambda found: chr(int(found[1], 16)) if found[1] else found[2], text)


def tells(text: str) -> bool:
    return any(SECRET.search(reading) for reading in readings(text))


# --- a text


@pytest.mark.parametrize("secret", [KEY, LINK])
@pytest.mark.parametrize("form", FORMS)
def test_a_secret_in_a_text_is_found_however_it_is_written(form: str, secret: str) -> None:
    """And JSON stays JSON."""
    text = FORMS[form](secret)
    assert tells(text)
    told = changed_deeply(text, mask)
    assert not tells(told)
    if is_json(text) and form != "so deep that nobody looks":
        assert is_json(told)
        assert shape(json.loads(told)) == shape(json.loads(text))


@pytest.mark.parametrize("form", sorted(FORMS.keys() - {"so deep that nobody looks", "beside another"}))
def test_a_text_without_a_secret_stays_as_it_was_written(form: str) -> None:
    """Digit by digit, escape by escape."""
    text = FORMS[form]('jörg / "x" 1.50, and nothing else')
    assert changed_deeply(text, mask) == text


def test_what_is_between_strings_stays_as_it_was_written() -> None:
    """Numbers beyond a double, names that come twice, blanks; a number that is a card's becomes a string."""
    text = f'{{ "n" : 1.50e+2, "n": 12345678901234567890123, "k":"{KEY}", "c":[4111111111111111] }}'
    told = changed_deeply(text, mask)
    assert told == re.sub(KEY, mask(KEY), text).replace("4111111111111111", f'"{mask("4111111111111111")}"')


def test_what_a_name_gives_away_is_masked_in_json_too() -> None:
    """In a text of JSON, escapes included, and in the fields of a request."""
    secret = "Basic dXNlcjpwYXNzd29yZA=="
    text = f'{{"headers": {{"Authorization": "{first_escaped(secret)}"}}}}'
    assert "dXNl" not in changed_deeply(text, mask)
    written = line(replace(begun(), request={"headers": {"Authorization": secret}}))
    assert "dXNl" not in written
    assert json.loads(written)["request"]["headers"]["Authorization"].startswith("Basic [API_KEY_")


def test_a_key_over_several_strings_is_masked_whole() -> None:
    """The lines of a private key as a list: the JSON is lost, the key is not told."""
    lines = [
        "-----BEGIN PRIVATE KEY-----",
        *["MIIEowIBAAKCAQEA1234567890abcdefghijklmnopqrstuv"] * 3,
        "-----END PRIVATE KEY-----",
    ]
    assert "MIIE" not in changed_deeply(json.dumps({"lines": lines}), mask)


def test_what_is_escaped_without_end_is_left_out() -> None:
    """A bounded number of steps, and nothing that was not looked at."""
    assert changed_deeply("\\u005c" + "u005c" * 100, mask) == LEFT_OUT
    assert changed_deeply("x" + "\\" * 255, mask) == "x" + "\\" * 255


escapes = st.sampled_from(["\\", '"', "\\n", "\\u0041", "{", "}", "[", ",", ":", " ", "a", "1", "/", "\\/", "é", "\ud83d"])


@settings(max_examples=200)
@given(before=st.lists(escapes, max_size=12), after=st.lists(escapes, max_size=12), form=st.sampled_from(sorted(FORMS)))
def test_nothing_around_a_secret_hides_it(before: Sequence[str], after: Sequence[str], form: str) -> None:
    """Quotes, backslashes and brackets in any order, before and after."""
    text = "".join([*before, " ", FORMS[form](KEY), " ", *after])
    assert not tells(changed_deeply(text, mask))


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def shape(value: Any) -> Any:
    if isinstance(value, dict):
        return [shape(item) for item in value.values()]
    return [shape(item) for item in value] if isinstance(value, list) else type(value)


# --- every position of a record

OURS: Final[Mapping[type, frozenset[str]]] = {
    Begin: frozenset({"id", "wire", "client"}),
    End: frozenset({"id", "ending", "decoder", "unchecked", "timings"}),
    SampleRecord: frozenset({"policy", "verdict"}),
    VerdictRecord: frozenset({"policy", "hook", "verdict", "action", "mode", "kind"}),
    ModelCall: frozenset({"policy"}),
    Block: frozenset({"kind"}),
}
ERROR_NAMES: Final = {"type", "message", "code", "param"}
Planted = Callable[[str], Any]


def positions(value: Any, place: str = "") -> Iterator[tuple[str, Planted]]:
    """Yield where a text can stand in a record, each with what makes the record with another text there."""
    if isinstance(value, str) or value is None:
        yield place, lambda secret: secret
    elif is_dataclass(value):
        for field in fields(value):
            if field.name not in OURS[type(value)]:
                part = getattr(value, field.name)
                if part is None:
                    continue  # of a block's `raw`: no text can stand there
                for name, planted in positions(part, f"{place}.{field.name}"):
                    yield name, lambda secret, at=field.name, planted=planted: replace(value, **{at: planted(secret)})  # type: ignore[misc]
    elif isinstance(value, Mapping):
        yield from positions_of_fields(value, place)
    elif isinstance(value, list | tuple):
        for number, item in enumerate(value):
            for name, planted in positions(item, f"{place}[{number}]"):
                yield name, lambda secret, at=number, planted=planted: [*value[:at], planted(secret), *value[at + 1 :]]


def positions_of_fields(value: Mapping[Any, Any], place: str) -> Iterator[tuple[str, Planted]]:
    for key, item in value.items():
        for name, planted in positions(item, f"{place}.{key}"):
            yield name, lambda secret, at=key, planted=planted: {**value, at: planted(secret)}
        if isinstance(key, str) and not (place == ".error" and key in ERROR_NAMES):
            yield (
                f"{place}.<{key}>",
                lambda secret, at=key: {secret if name == at else name: item for name, item in value.items()},
            )


CALL: Final = {"command": "ls", "options": {"all": True, "paths": ["/a", "/b"]}}
ASKED: Final[Mapping[str, Mapping[str, Any]]] = {
    OPENAI: {
        "model": "scripted",
        "stream": True,
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "name": "ann", "content": [{"type": "text", "text": "Hi"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "run", "arguments": json.dumps(CALL)}}],
            },
            {"role": "tool", "tool_call_id": "c1", "content": json.dumps({"out": "x"})},
        ],
        "tools": [
            {
                "type": "function",
                "function": {"name": "run", "description": "runs", "parameters": {"type": "object", "title": "T"}},
            }
        ],
        "stop": ["END"],
        "user": "u",
        "metadata": {"a": "b"},
    },
    ANTHROPIC: {
        "model": "scripted",
        "stream": True,
        "max_tokens": 100,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "run", "input": CALL}]},
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "x"}]}],
            },
        ],
        "tools": [{"name": "run", "description": "runs", "input_schema": {"type": "object", "title": "T"}}],
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
    },
    RESPONSES: {
        "model": "scripted",
        "stream": True,
        "instructions": "Be brief.",
        "input": [
            {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
            {"type": "function_call", "call_id": "c1", "name": "run", "arguments": json.dumps(CALL)},
            {"type": "function_call_output", "call_id": "c1", "output": "x"},
        ],
        "tools": [{"type": "function", "name": "run", "description": "runs", "parameters": {"type": "object", "title": "T"}}],
        "metadata": {"a": "b"},
    },
}
ANSWER: Final = chunks(Thinking("Let me see", signature="c2ln"), "Here it is", ToolCall("call_1", "run", CALL))


def make(recorder: TransactionRecorder, script: Any, **options: Any) -> ASGIDriver:
    async def behind(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    return ASGIDriver(LuthienMiddleware(behind, backend=ScriptedBackend(script), recorder=recorder, **options))


async def transaction(path: str) -> tuple[Begin, End]:
    """Return what a client of one format leaves behind, and beside it all that a transaction may have."""
    recorder = MemoryRecorder()
    response = await make(recorder, ANSWER).fetch("POST", path, json=ASKED[path])
    assert response.status == 200
    (begin,), (end,) = recorder.begun, recorder.ended
    assert [str(block.kind) for block in end.final_blocks][-2:] == ["text", "tool_call"]
    assert end.sent
    verdict = VerdictRecord(policy="P", hook="on_request", verdict="deny", action="deny", reason="bad", kind="text", tool="run")
    other = Block(kind=BlockKind.OTHER, raw={"type": "server_tool_use", "input": {"query": "q"}, "n": 1}, index=9)
    call = ModelCall(policy="P", model="judge", usage={"details": {"tier": "x"}}, seconds=1.0, error="Timeout")
    sample = SampleRecord(
        model="m", policy="P", verdict="resample", sent=end.sent, blocks=(other,), usage={"tier": "x"}, finish_reasons={0: "stop"}
    )
    return begin, replace(
        end,
        error={"type": "api_error", "message": "no", "code": "c", "param": None, "more": "said"},
        ignored=("cache_control",),
        backend_blocks=(*end.backend_blocks, other),
        final_blocks=(*end.final_blocks, other),
        verdicts=(verdict,),
        usage={"prompt_tokens": 1, "details": {"tier": "x", "list": ["y"]}},
        samples=(sample,),
        calls=(call,),
        unchecked=("P",),
        notes=("fallback",),
    )


def begun() -> Begin:
    return Begin(id="t", at=1.5, wire="openai", path=OPENAI, model="m", stream=False, client="ann", request={})


def line(record: Begin | End, content: Content = "full", using: Callable[[str], str] = mask) -> str:
    return Lines(content=content, mask=using).of(record).decode()


@pytest.mark.parametrize("content", ["full", "final", "hash"])
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, RESPONSES])
async def test_a_secret_is_masked_wherever_it_stands_in_a_record(path: str, content: Content) -> None:
    """Each place of both lines, with names of fields, and at each some of the ways to write it, all of them in the end."""
    forms = list(FORMS.values())
    count = 0
    for record in await transaction(path):
        unchanged = json.loads(line(record, content))
        for place, planted in positions(record):
            for step in range(3):
                changed = planted(forms[(count + step) % len(forms)](KEY))
                written = line(changed, content)
                assert not tells(written), place
                assert unchanged.keys() == json.loads(written).keys()
                assert "without its content" not in written
            count += 3
    assert count > 300


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, RESPONSES])
async def test_a_mask_that_finds_nothing_changes_nothing(path: str) -> None:
    """Byte for byte, with every view."""
    for record in await transaction(path):
        for content in ("full", "final", "hash"):
            assert line(record, content) == Lines(content=content).of(record).decode()


@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, RESPONSES])
async def test_what_the_record_says_itself_is_not_masked(path: str) -> None:
    """A mask that takes everything leaves the record's own fields, who asked, how it ended, what was counted."""
    begin, end = await transaction(path)
    first, second = json.loads(line(begin, using=lambda _: "*")), json.loads(line(end, using=lambda _: "*"))
    assert (first["id"], first["type"], first["wire"], first["model"]) == (begin.id, "begin", begin.wire, "*")
    assert list(first["request"]) == ["*", *(f"* ({number})" for number in range(2, len(ASKED[path]) + 1))]
    assert (second["ending"], second["status"], second["unchecked"], second["timings"]) == (
        "completed",
        200,
        ["P"],
        dict(end.timings),
    )
    assert list(second["error"]) == ["type", "message", "code", "param", "*"]
    assert (second["verdicts"][0]["verdict"], second["verdicts"][0]["reason"]) == ("deny", "*")
    assert [block["kind"] for block in second["final_blocks"]] == [str(block.kind) for block in end.final_blocks]
    assert second["usage"]["*"] == 1


def test_a_value_of_another_type_is_masked_as_what_is_written_of_it() -> None:
    """A policy may put into a request whatever can be written as JSON; what cannot is not written."""

    class Word(str):
        __slots__ = ()

    record = replace(begun(), request={"a": frozenset({KEY}), "b": Word(KEY), "c": Block(kind=BlockKind.TEXT, text=KEY)})
    assert not tells(line(record))
    with pytest.raises(TypeError):
        line(replace(begun(), request={"a": object()}))


def test_names_that_become_the_same_are_all_kept() -> None:
    """Thousands of them, and one that is named like them, in a time that grows with their number."""
    fields = {f"{number}": number for number in range(20_000)} | {"* (3)": "kept"}
    written = json.loads(line(replace(begun(), request=fields), using=lambda text: text if text == "* (3)" else "*"))["request"]
    assert list(written.items())[:3] == [("*", 0), ("* (2)", 1), ("* (3)", 2)]
    assert len(written) == len(fields)


def test_what_the_record_counts_and_measures_stays_a_number() -> None:
    """Its time, the usage; a number of a client's is masked like a text."""
    record = replace(begun(), at=4111111111111111.0, request={"n": 4111111111111111, "m": 1.5e300, "small": 411111})
    written = json.loads(line(record, using=lambda text: "*" if "411111" in text else text))
    assert (written["at"], written["request"]) == (4111111111111111.0, {"n": "*", "m": 1.5e300, "small": 411111})
    end = replace(Transaction(begun()).end("failed"), usage={"total_tokens": 4111111111111111})
    assert json.loads(line(end))["usage"] == {"total_tokens": 4111111111111111}


def test_a_mask_that_fails_at_all_texts_lets_none_through() -> None:
    """The record says who asked, how it ended, and that there were texts; not what the error says."""

    def failing(text: str) -> str:
        raise TimeoutError(text)

    lines = Lines(content="full", mask=failing)
    first = lines.of(replace(begun(), request={"a": KEY})).decode()
    assert not tells(first)
    assert (json.loads(first)["id"], json.loads(first)["client"], json.loads(first)["request"]) == ("t", "ann", {FAILED: FAILED})
    end = replace(Transaction(begun()).end("failed"), notes=(KEY,), ignored=(KEY,), error={"message": KEY})
    last = json.loads(lines.of(end))
    assert not tells(json.dumps(last))
    assert (last["ending"], last["ignored"], last["error"]) == ("failed", [FAILED], {"message": FAILED})
    note = last["notes"][-1]
    assert last["notes"] == [FAILED, note]
    assert note.startswith("texts left out of the record: ")
    assert note.endswith(" because the mask failed (TimeoutError)")


@pytest.mark.parametrize("content", ["full", "final"])
async def test_a_text_that_the_mask_fails_at_is_left_out_alone(content: Content) -> None:
    """Wherever it stands: all other texts, the verdicts and the figures are there."""

    def failing(text: str) -> str:
        if "Here it is" in text:
            raise TimeoutError
        return mask(text)

    _, end = await transaction(OPENAI)
    expected, told = json.loads(line(end, content)), json.loads(line(end, content, failing))
    assert told.pop("notes") == [*expected.pop("notes"), "texts left out of the record: 1 because the mask failed (TimeoutError)"]
    assert json.loads(json.dumps(expected).replace("Here it is", FAILED)) == told


class Clock:
    """The time of a thread that does nothing but mask: a mask says how long it took."""

    def __init__(self, slow: str = "slow") -> None:
        self.now = 100.0
        self.slow = slow
        self.calls: list[str] = []

    def __call__(self) -> float:
        return self.now

    def mask(self, text: str) -> str:
        """Mask a text; one with `slow` in it takes longer than a record may, each other one takes a millionth."""
        self.calls.append(text)
        self.now += MASK_TIME if self.slow in text else 1e-6
        return mask(text)


async def test_a_slow_text_takes_no_time_from_shorter_ones() -> None:
    """It is left out, and what is longer; what a shorter text says is there, also behind it."""
    _, end = await transaction(OPENAI)
    clock = Clock()
    slow, longer = "slow " * 1000, "word " * 2000
    texts = [slow, longer, "short " + KEY, "words " * 300]
    blocks = [Block(kind=BlockKind.TEXT, text=text, index=place) for place, text in enumerate(texts)]
    told = masked(replace(end, backend_blocks=blocks, final_blocks=blocks), clock.mask, clock=clock)
    assert [block.text for block in told.final_blocks] == [slow, NO_TIME, "short " + mask(KEY), "words " * 300]
    assert list(told.backend_blocks) == list(told.final_blocks)
    assert sum("slow" in text for text in clock.calls) == 1
    assert (told.verdicts[0].reason, told.verdicts[0].tool, told.usage) == ("bad", "run", end.usage)
    assert told.notes == ["fallback", "texts left out of the record: 1 for want of time"]


def test_a_slow_text_that_is_to_be_looked_at_once_more_is_left_out() -> None:
    """The time is looked at before each call; short texts have their own, and that ends too."""
    clock = Clock()
    record = replace(begun(), request={"a": json.dumps(["slow " * 1000]), "b": ["slow 1", "slow 2", "slow 3"], "c": KEY, "d": 1})
    told = masked(record, clock.mask, clock=clock)
    assert told.request["a"] == NO_TIME
    assert told.request["b"] == ["slow 1", "slow 2", NO_TIME]
    assert (told.id, told.client, told.request["c"]) == ("t", "ann", NO_TIME)
    assert sum("slow" in text for text in clock.calls) == 2


def test_a_record_is_masked_however_many_slow_texts_it_has() -> None:
    """The number of calls is bounded, and so is the time."""
    clock = Clock("slow " * 1000)
    request = {"messages": [{"role": "user", "content": f"{number} " + "slow " * 1000} for number in range(100)]}
    told = masked(replace(begun(), request=request), clock.mask, clock=clock)
    assert [each["content"] for each in told.request["messages"]].count(NO_TIME) == 99
    assert {each["role"] for each in told.request["messages"]} == {"user"}
    assert sum(clock.slow in text for text in clock.calls) == 1


@pytest.mark.parametrize("levels", [1, 4, 7])
@pytest.mark.parametrize("text", ["words of a text " * 200, f"{KEY} " * 100, f'{{"key": "{KEY}", "lines": "{"x y " * 1000}"}}'])
def test_what_the_mask_is_called_with_does_not_grow_with_how_deep_a_text_nests(text: str, levels: int) -> None:
    """Each text once, and longer JSON in a string not with each level around it."""
    calls: list[str] = []

    def counting(part: str) -> str:
        calls.append(part)
        return mask(part)

    told = changed_deeply(nested(text, levels), counting)
    assert len(calls) == len(set(calls))
    assert sum(len(call) for call in calls if len(call) > 1024) <= 8 * len(nested(text, levels))
    assert sum(len(call) > 1024 for call in calls) <= 8
    assert not tells(told)
    assert is_json(told)


def test_what_stands_around_longer_json_in_a_string_is_masked_with_it() -> None:
    """And marks of one's own, escaped or not, are nobody else's."""
    inner = json.dumps({"words": "x y " * 500, "key": KEY})
    text = json.dumps({"Authorization": "Basic dXNlcjpwYXNzd29yZA==", "\ue000" + "0\ue000": inner, "k": ["\ue0010\ue001", inner]})
    for form in (text, text.replace("\\ue000", "\ue000")):
        told = changed_deeply(form, mask)
        assert not tells(told)
        assert "dXNl" not in told
        assert shape(json.loads(told)) == shape(json.loads(text))
        assert json.loads(told)["k"] == ["\ue0010\ue001", inner.replace(KEY, mask(KEY))]


def test_a_longer_value_is_known_by_its_name_too() -> None:
    """And one that a name gives nothing away of stays."""
    long = "dXNlcjpwYXNzd29yZA" * 100
    written = json.loads(line(replace(begun(), request={"Authorization": f"Basic {long}", "a": f"Basic {long}"})))["request"]
    assert written["Authorization"].startswith("Basic [API_KEY_")
    assert "dXNl" not in written["Authorization"]
    assert written["a"] == f"Basic {long}"


# --- the files


@pytest.mark.parametrize("durability", ["relaxed", "strict"])
@pytest.mark.parametrize("path", [OPENAI, ANTHROPIC, RESPONSES])
async def test_no_file_of_a_record_and_no_answer_from_it_tells_a_secret(path: str, durability: Any, tmp_path: Path) -> None:
    """Secrets from the client and from the model, rotated files, the route of operators, and what is read again."""
    record = tmp_path / "t.jsonl"
    recorder = JsonlRecorder(record, mask=mask, durability=durability, max_bytes=4000)
    said = chunks(
        Thinking(f"I see {KEY}", signature="c2ln"), Text(f"It is {KEY}"), ToolCall("call_1", "run", {KEY: {"k": [KEY, LINK]}})
    )
    driver = make(recorder, said, paths=Paths(records="/records"), operators=KeyAuth({"ops": "operator-key"}))
    ids = []
    await recorder.start()
    try:
        for form in FORMS.values():
            body = json.loads(
                json.dumps(ASKED[path]).replace(json.dumps("Hi"), json.dumps(form(KEY))).replace('"u"', json.dumps(KEY))
            )
            response = await driver.fetch("POST", path, json=body)
            assert response.status == 200
            ids.append(response.headers["x-luthien-transaction"])
        for identity in ids:
            found = await driver.fetch("GET", f"/records/{identity}", headers={"authorization": "Bearer operator-key"})
            assert found.status == 200
            assert not tells(found.body.decode())
    finally:
        await recorder.aclose()
    check_files(record, ids)


def check_files(record: Path, ids: Sequence[str]) -> None:
    files = [file for file in record.parent.iterdir() if file.suffix == ".jsonl"]
    assert len(files) > 2
    assert not [file.name for file in files if tells(file.read_text())]
    seen = list(read_transactions(record))
    assert sorted(each["id"] for each in seen) == sorted(ids)
    assert all(each["end"]["ending"] == "completed" for each in seen)
