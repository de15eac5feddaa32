# ruff: noqa: E501 - lists of samples
"""What `Redact` finds, what it leaves, and that no cut and no text makes a difference to either."""

from __future__ import annotations

import re
import time
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from luthien_asgi.policies import Redact
from luthien_asgi.policies.detectors import KINDS, Detectors

PEM: Final = (
    "-----BEGIN RSA PRIVATE KEY-----\n" + "MIIEowIBAAKCAQEA1234567890abcdefghijklmnopqrstuvwxyz+/ABCDEFGHIJ\n" * 5 + "abcd==\n"
    "-----END RSA PRIVATE KEY-----"
)
PGP: Final = (
    "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: GnuPG v2\n\n" + "lQOYBF0000000000000000000000000000000000000000000000000000000000\n" * 2
    + "=abcd\n-----END PGP PRIVATE KEY BLOCK-----"
)  # fmt: skip
X: Final = "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8s9T0"

VALUES: Final[list[tuple[str, str]]] = [
    *(
        ("api_key", value)
        for value in (
            f"sk-{X}", f"sk-proj-{X}_-{X}", f"sk-ant-api03-{X}", f"sk-or-v1-{X}", "AKIAIOSFODNN7EXAMPLE", "ASIAIOSFODNN7EXAMPLE",
            f"ghp_{X}", f"gho_{X}", f"ghs_{X}", f"ghu_{X}", f"ghr_{X}", f"github_pat_{X}_{X}", f"glpat-{X[:20]}",
            "xoxb-123456789012-abcdefABCDEF", "xoxp-1-2-3-abcdef0123456789", "xapp-1-A0B1C2D3E4-123-abc",
            f"https://hooks.slack.com/services/{X}"[8:], f"AIza{X[:35]}", f"ya29.{X}", f"sk_live_{X}", f"rk_live_{X}",
            f"sk_test_{X}", f"whsec_{X}", f"npm_{X[:36]}", f"pypi-AgEIcHlwaS5vcmc{X}", f"hf_{X[:34]}", f"SG.{X[:22]}.{X}",
            "AC0123456789abcdef0123456789abcdef", "SK0123456789abcdef0123456789abcdef",
            "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc-_123ABC", f"gsk_{X}", f"xai-{X}", f"pplx-{X}", f"nvapi-{X}", f"r8_{X}",
            "dop_v1_0123456789abcdef0123456789abcdef", "dapi0123456789abcdef0123456789abcdef",
            "shpat_0123456789abcdef0123456789abcdef", f"dckr_pat_{X}", f"hvs.{X}", f"ntn_{X}", f"lin_api_{X}", f"sbp_{X}",
            f"ATATT3{X}", "AGE-SECRET-KEY-1" + "Q" * 58,
        )
    ),
    *(("private_key", value) for value in (PEM, PGP, PEM.replace("\n", "\\n"), PEM.replace("RSA ", ""), PEM.replace("\n", "\n> "))),
    *(("email", value) for value in ("alice@example.com", "a.b+c@mail.example.co.uk", "jörg@müller.de", "x@xn--p1ai.xn--p1ai", "o'brien@x.org")),
    *(("iban", value) for value in ("DE89 3704 0044 0532 0130 00", "DE89370400440532013000", "gb29nwbk60161331926819", "NO93 8601 1117 947", "FR1420041010050500013M02606", "MT84MALT011000012345MTLCAST001S")),
    *(("card", value) for value in ("4111111111111111", "4111 1111 1111 1111", "5555-5555-5555-4444", "3782 822463 10005", "6011111111111117", "30569309025904", "4222222222222", "2223003122003222")),
    *(("phone", value) for value in ("+49 170 1234567", "+49 (0)170 1234567", "+1 (415) 555-2671", "+442079460958", "0044 20 7946 0958", "+33.1.23.45.67.89")),
]  # fmt: skip
"""Kind and value."""

LEFT_ALONE: Final = [
    "a task-assignments-2024-final-report", "disk-space-2024-is-low", "sk-learn", "the bearer of bad news", "Basic understanding",
    "4111111111111112", "1.4111111111111111", "DE89 3704 9944 0532 0130 01", "C++ 11 2020, +5 points, 00:12:34", "12345",
    "2024-01-01 12:30:45", "@decorator", "a@b", "user@localhost", "https://example.com:8080/path", "AKIA", "eyJ", "git@github.com:o/r.git", "http://localhost:3000?q=a@b", "-----BEGIN CERTIFICATE-----",
    "123e4567-e89b-12d3-a456-426614174000", "SG.x.y", "[EMAIL_3fa9c1b2d4]", "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQ", "1 2 3 4 5 6 7 8 9 10 11 12 13 14",
]  # fmt: skip


HEX: Final = "0123456789abcdef" * 4
GLUED: Final = [
    f"sk-ant-api03-{X}", f"sk-ant-oat01-{X}_-{X}", f"sk-or-v1-{HEX}", f"sk-proj-{X}_-T3BlbkFJ{X}", f"sk-{X[:20]}T3BlbkFJ{X[:20]}",
    "AKIAIOSFODNN7EXAMPLE", "AKIAIOSFODNNAEXAMPLE", f"ghp_{X[:36]}", f"ghs_{X}", f"github_pat_{X[:22]}_{X}{X[:19]}",
    f"glpat-{X[:20]}", "xoxb-123456789012-abcdefABCDEF", f"AIza{X[:35]}", f"GOCSPX-{X[:28]}", f"sk_live_{X[:24]}", f"rk_test_{X}",
    f"whsec_{X}", f"npm_{X[:36]}", f"pypi-AgEIcHlwaS5vcmc{X}", f"hf_{X[:34]}", f"SG.{X[:22]}.{X}abc",
    f"eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.{X}", f"gsk_{X}{X[:12]}", f"xai-{X}{X}", f"pplx-{X}", f"nvapi-{X}{X}",
    f"dop_v1_{HEX}", f"shpat_{HEX[:32]}", f"dckr_pat_{X}", f"sbp_{HEX[:40]}", f"PMAK-{HEX[:24]}-{HEX[:34]}",
    f"sntrys_eyJ{X}", f"ATATT3{X}{X}", "AGE-SECRET-KEY-1" + "Q" * 58,
]  # fmt: skip
"""Keys that are known by their form alone."""
WORDS: Final = [
    "task-ant-colony-2024-simulation-results", "disk-d41d8cd98f00b204e9800998ecf8427e", "risk-assessment-2024-final-report-v2",
    "task-proj-PROJ-1234-fix-the-login-page-on-mobile-devices", "EURASIANPOPULATIONSTUDY", "CAUCASIA2024POPULATION99X",
    "laughs_and_cries_and_more_of_this_2024", "weighs_d41d8cd98f00b204e9800998ecf8427e", "highs_2024", "disk_test_d41d8cd98f00b204e9800998ecf8427e",
    "task_live_update_of_the_dashboard_2024", "pnpm_workspace_d41d8cd98f00b204e9800998ecf8427e", "half_2024", "MSG.hello.world",
    "HMACd41d8cd98f00b204e9800998ecf8427e", "berlin_api_d41d8cd98f00b204e9800998ecf8427e00000000", "papaya29.d41d8cd98f00b204e9800998e",
    "foodapid41d8cd98f00b204e9800998ecf8427e", "ver8_2024_changes_to_the_interface", "flexai-2024-conference-in-the-city",
    "TEyJhbGciOiJIUzI1NiJ9", "AKIA", "XAKIAIOSFODNN7EXAMPLEX", "XAIzaSy", "relaxox-2024-whatever-it-is",
]  # fmt: skip
"""Words with what a key may begin with in them."""


@pytest.mark.parametrize("value", GLUED)
@pytest.mark.parametrize("around", ["x{}", "key{}", "0{} next", "KEY{}.", "_x{}", "ключ{}", "\\nx{}\\n", "a{}\n"])
def test_a_key_that_is_known_by_its_form_is_found_behind_a_letter_too(value: str, around: str) -> None:
    """And what it is glued to stays; at any cut."""
    text = around.format(value)
    expected = around.format(shown("api_key", value))
    detectors = Detectors(KINDS)
    assert detectors.masked(text, shown) == expected
    for place in range(len(text)):
        window = detectors.rules(shown).window()
        assert window.feed(text[:place]) + window.feed(text[place:]) + window.flush() == expected


@pytest.mark.parametrize("value", ["ASIAIOSFODNN7EXAMPLE", "ABIAIOSFODNN7EXAMPLE"])
def test_a_key_that_begins_like_a_word_is_found_behind_a_small_letter(value: str) -> None:
    """Not behind a capital: a word in capitals ends like that."""
    detectors = Detectors(KINDS)
    assert detectors.masked(f"key{value} 0{value}", shown) == "key‹api_key 20› 0‹api_key 20›"
    assert detectors.masked(f"EUR{value}", shown) == f"EUR{value}"


@pytest.mark.parametrize("text", WORDS)
def test_a_word_that_ends_like_a_key_begins_is_left_alone(text: str) -> None:
    """Whatever follows it that is no key by its form alone."""
    assert Detectors(KINDS).masked(text, shown) == text


def shown(kind: str, value: str) -> str:
    return f"‹{kind} {len(value)}›"


@pytest.mark.parametrize(("kind", "value"), VALUES)
@pytest.mark.parametrize("around", ["{}", "say {} now", "({}).", '"{}"', "x={},", "\\n{}\\n", "\n{}\n", "key: {}; more"])
def test_a_value_is_masked_whole(kind: str, value: str, around: str) -> None:
    """Nothing of it stays, and what is around it does, quoted, escaped or at either end."""
    got = Detectors(KINDS).masked(around.format(value), shown)
    assert got == around.format(shown(kind, value))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "aws_secret_access_key = ‹api_key 40›"),
        ('"SecretAccessKey": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"', '"SecretAccessKey": "‹api_key 40›"'),
        ("Authorization: Bearer abcDEF1234567890ghijkl==", "Authorization: Bearer ‹api_key 24›"),
        ('\\"Authorization\\": \\"Basic dXNlcjpwYXNzd29yZA==\\"', '\\"Authorization\\": \\"Basic ‹api_key 20›\\"'),
        ("TWILIO_AUTH_TOKEN=0123456789abcdef0123456789abcdef", "TWILIO_AUTH_TOKEN=‹api_key 32›"),
        ("postgres://bob:hunter2@db/x", "postgres://bob:‹password 7›@db/x"),
        ("redis://:p@ss@h", "redis://:‹password 4›@h"),
        ("Visa4111111111111111!", "Visa‹card 16›!"),
        ("4111 1111 1111 1111 12", "‹card 19› 12"),
        ("12 4111 1111 1111 1111 and 5555555555554444", "12 ‹card 19› and ‹card 16›"),
        ("<mailto:a@x.io>, b@y.io. alice%40example.com", "<mailto:‹email 6›>, ‹email 6›. ‹email 19›"),
        ("a%40b%40c.org, a%40b@c.org, a%20b%40c.org", "‹email 13›, ‹email 11›, ‹email 13›"),
        ("a%40b.org%40c", "‹email 9›%40c"),
        ("x=eyJhbGciOiJub25lIn0.e30xx.; token-eyJhbGciOiJub25lIn0.e30xx.", "x=‹api_key 26›; token-‹api_key 26›"),
        ("DE89 3704 0044 0532 0130 00 is mine", "‹iban 27› is mine"),
        (f"a {PEM[:150]}", "a ‹private_key 150›"),
        (f"{PEM[:150]}. And on.", "‹private_key 150›. And on."),
        (f"  1→{PEM}".replace("\nM", "\n  2→M"), "  1→‹private_key 407›"),
        ("4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 ok", "‹card 31› ok"),
        ("٤١١١١١١١١١١١١١١١", "‹card 16›"),
    ],
)
def test_what_is_around_a_value_decides(text: str, expected: str) -> None:
    """Words before it, borders of other texts, a key that breaks off."""
    got = Detectors(KINDS).masked(text, shown)
    assert re.sub(r"private_key \d+", "private_key", got) == re.sub(r"private_key \d+", "private_key", expected)


@pytest.mark.parametrize("text", LEFT_ALONE)
def test_what_only_looks_like_a_value_is_left_alone(text: str) -> None:
    """Check digits, lengths and borders."""
    assert Detectors(KINDS).masked(text, shown) == text


def test_kinds_that_are_not_named_are_left_alone() -> None:
    """And the rest is found."""
    text = "alice@example.com 4111111111111111"
    assert Detectors(["card"]).masked(text, shown) == "alice@example.com ‹card 16›"


RATIOS: Final = {"email": 12, "api_key": 30}
"""How much more than prose the dearest text may take."""


@given(
    parts=st.lists(
        st.one_of(
            st.sampled_from([value for _, value in VALUES if len(value) < 80]),
            st.sampled_from([*GLUED, *WORDS]),
            st.sampled_from(["a%40", "%40b.org", "%20", *LEFT_ALONE, PEM, PEM[:120], PEM[60:]]),
            st.text('a1@.+-_ \n:\\n"4é😀', max_size=8),
        ),
        max_size=4,
    ),
    sizes=st.lists(st.sampled_from([1, 2, 3, 5, 8, 30, 200]), min_size=1, max_size=30),
)
@settings(max_examples=300, deadline=None)
def test_any_cut_gives_the_same(parts: list[str], sizes: list[int]) -> None:
    """Fragment invariance: the window's result is that of the whole text, and no rule has to wait for the end of it."""
    detectors = Detectors(KINDS)
    text = "".join(parts)
    window, got, place = detectors.rules(shown).window(), "", 0
    while place < len(text):
        size = sizes[place % len(sizes)]
        got += window.feed(text[place : place + size])
        place += size
    assert got + window.flush() == detectors.masked(text, shown)


def test_the_last_word_is_what_waits() -> None:
    """Text leaves as soon as it cannot be part of a value any more."""
    window = Detectors(KINDS).rules(shown).window()
    pieces = ("The quick ", "brown fo", "x jumps", ".\n", "ok")
    assert [window.feed(text) for text in pieces] == ["The quick ", "brown ", "fox ", "jumps.\n", ""]


@pytest.mark.parametrize(
    "text",
    ["4 ", "a", "sk-", "a@", "a@a.", "-----BEGIN PRIVATE KEY-----", "+1 ", "DE12 ", "://", "://:", "bearer ", "eyJaaaaaaaaaaaa.aaaa", "twilio ", "1.1", "[EMAIL_", "\\n", "secret key = ", "0", " 1"],
)  # fmt: skip
def test_no_text_takes_long(text: str) -> None:
    """A hundred thousand characters of what the expressions begin with: the searches end within their time."""
    for start in ("", "-----BEGIN PRIVATE KEY-----\n"):
        Detectors(KINDS).masked(start + text * (100_000 // len(text)), shown)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("email", "%40a.a.a.a.a.a.a.a."),
        ("email", "%401a.1a.1a.1a.1a.1a.1a.1a."),
        ("email", "a.b-c+d"),
        ("email", "a%2a."),
        ("api_key", "eyJ-"),
    ],
)
def test_a_text_made_for_it_costs_little_more_than_prose(kind: str, text: str) -> None:
    """Per character, where nothing is found: no place is tried again and again."""
    detectors = Detectors([kind])

    def cost(text: str) -> float:
        began = time.thread_time()
        assert detectors.masked(text, shown) == text
        return time.thread_time() - began

    prose = "The quick brown fox jumps over it, and really. "
    hint = {"email": "@ ", "api_key": "eyJ "}[kind]
    usual = min(cost(hint + prose * (60_000 // len(prose))) for _ in range(3))
    hard = min(cost(hint + text * (60_000 // len(text))) for _ in range(3))
    assert hard < RATIOS[kind] * usual


def test_numbers_of_a_country_need_the_library() -> None:
    """`phone_region` finds them as they are written there."""
    pytest.importorskip("phonenumbers")
    policy = Redact(phone_region="DE", kinds=["phone"])
    masked = policy.mask("ruf 030 1234567 an, oder +1 415 555 2671, 2024-01-01")
    assert re.fullmatch(r"ruf \[PHONE_\w{10}\] an, oder \[PHONE_\w{10}\], 2024-01-01", masked)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"where": "answer"}, "where must be request, response or both, not 'answer'"),
        ({"kinds": ["mail"]}, "kinds must be some of private_key, .*, not 'mail'"),
        ({"kinds": []}, "kinds must be some of"),
        ({"kinds": "email"}, "kinds must be a list of texts, not 'email'"),
        ({"key": "short"}, "key must be a text of 16 characters at least"),
        ({"key": 1}, "key must be a text"),
        ({"restore": True, "where": "response"}, "restore needs where: request or both"),
        ({"restore": "yes"}, "restore must be true or false, not 'yes'"),
        ({"thinking": "mask"}, "thinking must be deny or pass, not 'mask'"),
        ({"keep": "x"}, "keep must be a list of texts"),
        ({"phone_region": "Germany"}, "phone_region must be a country's code of two capitals"),
        ({"phone_region": "DE", "kinds": ["email"]}, "phone_region is a country's code, for the kind phone"),
        ({"message": " "}, "message must be a text that is not blank"),
    ],
)
def test_settings_that_make_no_sense_are_refused(arguments: dict[str, Any], message: str) -> None:
    """The message says what to write."""
    if arguments.get("phone_region") == "Germany":
        pytest.importorskip("phonenumbers")
    with pytest.raises(ValueError, match=message):
        Redact(**arguments)
