"""The section `approvals`: who decides about held blocks, checked before anything starts."""

# ruff: noqa: E501 - a case is one line: what is written, and what is said about it

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest

from luthien_asgi import Approval, ConfigError, KeyAuth, cli
from luthien_asgi.config import Config, load
from luthien_asgi.private_folder import default_folder
from luthien_asgi.server import create_app
from luthien_asgi.testing import ASGIDriver

MODELS = "model_list: [{model_name: a, litellm_params: {model: openai/x}, passthrough: true}]\n"
NAMED = "operator-key-1"


async def tell(approval: Approval) -> bool | None:
    """A callback that decides nothing."""
    return None


not_callable = 3


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "luthien.yaml"
    path.write_text(MODELS + textwrap.dedent(text))
    return path


def loaded(tmp_path: Path, text: str, environ: dict[str, str] | None = None) -> Config:
    return load(written(tmp_path, text), environ=environ or {})


def operator_of(config: Config, key: str) -> Any:
    assert config.approvals is not None
    assert isinstance(config.approvals.auth, KeyAuth)
    return config.approvals.auth({"x-api-key": key}).name


def test_without_the_section_nobody_is_asked(tmp_path: Path) -> None:
    """There is no route either."""
    config = loaded(tmp_path, "")
    assert (config.approvals, config.paths.approvals) == (None, None)


def test_the_whole_section(tmp_path: Path) -> None:
    """Each key in its place; nothing is made."""
    folder = tmp_path / "d"
    text = f"approvals: {{keys: {{alice: os.environ/ALICE}}, timeout: 60.5, limit: 7, directory: '{folder}', notify: {__name__}.tell}}"
    config = loaded(tmp_path, text, {"ALICE": NAMED})
    desk = config.approvals
    assert desk is not None
    assert (desk.timeout, desk._limit, desk.directory, desk._notify.__name__) == (60.5, 7, folder, "tell")  # type: ignore[union-attr]
    assert operator_of(config, NAMED) == "alice"
    assert config.paths.approvals == "/luthien/approvals"
    assert not folder.exists()
    assert NAMED not in repr(config)


def test_a_list_of_keys_names_operators(tmp_path: Path) -> None:
    """Not clients: that is what a record shows."""
    config = loaded(tmp_path, "approvals: {keys: [operator-key-1, operator-key-2]}")
    assert [operator_of(config, key) for key in ("operator-key-1", "operator-key-2")] == ["operator-1", "operator-2"]


def test_the_folder_belongs_to_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the file is named: all workers of one configuration meet, and those of another do not."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, other = (loaded(tmp_path / name, "approvals: {keys: [operator-key-1]}").approvals for name in ("a", "b"))
    assert one is not None
    assert other is not None
    assert one.directory == default_folder(str(tmp_path / "a" / "luthien.yaml")) != other.directory
    monkeypatch.chdir(tmp_path)
    same = load("a/../a/luthien.yaml", environ={}).approvals
    assert same is not None
    assert same.directory == one.directory


def test_a_callback_needs_no_operators(tmp_path: Path) -> None:
    """There are no routes then."""
    config = loaded(tmp_path, f"approvals: {{notify: {__name__}.tell}}")
    assert config.approvals is not None
    assert config.approvals.auth is None
    assert config.paths.approvals is None


def test_the_path_can_be_another_or_none(tmp_path: Path) -> None:
    section = "approvals: {keys: [operator-key-1]}\n"
    assert loaded(tmp_path, section + "paths: {approvals: /held}").paths.approvals == "/held"
    assert loaded(tmp_path, section + "paths: {approvals: null}").paths.approvals is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("approvals: {}", "2: approvals: keys is missing: operators' keys, a list or by name (or notify, for a callback that decides)"),
        ("approvals: [a]", "2: approvals: must be a mapping, not a list"),
        ("approvals: {keys: [operator-key-1], timout: 5}", "2: approvals.timout: unknown key; did you mean 'timeout'?"),
        ("approvals: {keys: []}", "2: approvals.keys: is empty: nobody could come in"),
        ("approvals: {keys: [short]}", "2: approvals.keys: the key of 'operator-1' is not a text of 8 characters or more"),
        ("approvals: {keys: [12345678]}", "2: approvals.keys[0]: a key must be a string that is not blank: quote it"),
        ("approvals: {keys: [operator-key-1, operator-key-1]}", "2: approvals.keys[1]: the same key is there twice"),
        ("approvals: {keys: [operator-key-1]}\nauth: {keys: {c: operator-key-1}}", "2: approvals.keys[0]: is a client's key too, and a client could approve its own requests"),
        ("auth: {keys: [operator-key-1]}\napprovals: {keys: {o: operator-key-1}}", "3: approvals.keys.o: is a client's key too, and a client could approve its own requests"),
        ("approvals: {keys: [operator-key-1], timeout: 0}", "2: approvals.timeout: must be positive, not 0"),
        ("approvals: {keys: [operator-key-1], timeout: .inf}", "2: approvals.timeout: must be positive, not inf"),
        ("approvals: {keys: [operator-key-1], timeout: .nan}", "2: approvals.timeout: must be positive, not nan"),
        ("approvals: {keys: [operator-key-1], timeout: 5m}", "2: approvals.timeout: must be a number, not '5m'"),
        ("approvals: {keys: [operator-key-1], limit: 1.5}", "2: approvals.limit: must be a whole number, not 1.5"),
        ("approvals: {keys: [operator-key-1], limit: -1}", "2: approvals.limit: must be positive, not -1"),
        ("approvals: {keys: [operator-key-1], directory: 7}", "2: approvals.directory: must be a string, not 7: quote it"),
        (f"approvals: {{keys: [operator-key-1], directory: /{'x' * 200}}}", f"2: approvals.directory: the folder /{'x' * 200} is too long for sockets: theirs would have 223 bytes, of 103 at most"),
        ("approvals: {keys: [operator-key-1], notify: tell}", "2: approvals.notify: 'tell' is not a dotted path: write module.function"),
        ("approvals: {keys: [operator-key-1], notify: nowhere.tell}", "2: approvals.notify: there is no module 'nowhere'"),
        (f"approvals: {{keys: [operator-key-1], notify: {__name__}.tel}}", f"2: approvals.notify: the module {__name__} has no 'tel'; did you mean 'tell'?"),
        (f"approvals: {{keys: [operator-key-1], notify: {__name__}.not_callable}}", f"2: approvals.notify: {__name__}.not_callable is not a function"),
        ("approvals: {keys: [operator-key-1], notify: luthien_asgi.policy.Policy}", "2: approvals.notify: luthien_asgi.policy.Policy is not a function"),
        (
            "paths: {approvals: /held}",
            "2: paths.approvals: nobody could answer there: write approvals: {keys: {alice: os.environ/ALICES_KEY}}",
        ),
        (
            "paths: {approvals: /held}\noperators: {keys: [operator-key-1]}",
            "2: paths.approvals: nobody could answer there: write approvals: {}",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    """One problem, and no key in it."""
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text)
    assert str(caught.value).splitlines() == [f"{tmp_path / 'luthien.yaml'}:{message}"]
    assert NAMED not in str(caught.value)


def test_check_says_who_decides(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And shows no key."""
    path = written(tmp_path, "approvals: {keys: {alice: operator-key-1}, directory: /tmp/held}")
    assert cli.main(["check", "--config", str(path)]) == 0
    said = capsys.readouterr().out
    assert "  approval by KeyAuth(clients=['alice']) within 300 s, workers meet in /tmp/held\n" in said
    assert NAMED not in said


async def test_the_gateway_has_the_routes(tmp_path: Path) -> None:
    """From the file to an answer."""
    gateway = create_app(loaded(tmp_path, f"approvals: {{keys: {{alice: operator-key-1}}, directory: '{tmp_path}/d'}}"))
    driver = ASGIDriver(gateway, within=60)
    async with driver.lifespan():
        assert (await driver.fetch("GET", "/luthien/approvals")).status == 401
        listed = await driver.fetch("GET", "/luthien/approvals", headers={"x-api-key": NAMED})
        assert (listed.status, listed.json()) == (200, [])
