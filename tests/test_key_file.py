"""A key in a file: which files are read, and what is said about the others."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from luthien_asgi import ClientKey, ConfigError
from luthien_asgi.auth import KeyAuth
from luthien_asgi.cli import main
from luthien_asgi.config import Config, load
from luthien_asgi.key_file import read_key

KEY = "a-key-in-a-file-0123"
MODELS = "model_list: [{model_name: fast, litellm_params: {model: openai/x}}]\n"


def written(tmp_path: Path, content: bytes = KEY.encode(), mode: int = 0o600) -> Path:
    path = tmp_path / "key"
    path.write_bytes(content)
    path.chmod(mode)
    return path


def loaded(tmp_path: Path, text: str, **environ: str) -> Config:
    path = tmp_path / "luthien.yaml"
    path.write_text(MODELS + text)
    return load(path, environ=environ)


def problem(tmp_path: Path, text: str, **environ: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(tmp_path, text, **environ)
    assert KEY not in str(caught.value)
    return str(caught.value).replace(str(tmp_path), "")


@pytest.mark.parametrize("content", [KEY, KEY + "\n", KEY + "\r\n", f"  {KEY} \n"])
def test_the_line_in_it_is_the_key(tmp_path: Path, content: str) -> None:
    """Editors and secret stores end it as they like."""
    assert read_key(written(tmp_path, content.encode())) == KEY


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o440, 0o640, 0o700])
def test_a_file_that_others_cannot_read_is_read(tmp_path: Path, mode: int) -> None:
    """A group may read it: so containers get theirs."""
    assert read_key(written(tmp_path, mode=mode)) == KEY


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o601, 0o620, 0o660, 0o666, 0o777])
def test_a_file_that_others_can_read_or_change_is_refused(tmp_path: Path, mode: int) -> None:
    """As ssh refuses it; the message says what to do and shows nothing of the key."""
    with pytest.raises(ConfigError, match=rf"mode {mode:04o}.*make it 0600") as caught:
        read_key(written(tmp_path, mode=mode))
    assert KEY not in str(caught.value)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    """Whoever owns it could change it."""
    path = written(tmp_path)
    os.chown(path, 4242, -1)
    with pytest.raises(ConfigError, match="belongs to another user"):
        read_key(path)


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n", b"one-key-here\nanother-key\n", b"\xff\xfe-is-not-utf-8", b"x" * 5000])
def test_anything_but_one_line_is_refused(tmp_path: Path, content: bytes) -> None:
    """Two lines are two keys, and which one counts cannot be told."""
    with pytest.raises(ConfigError, match="one key on one line"):
        read_key(written(tmp_path, content))


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a folder, nothing at all, and a name that cannot be one."""
    os.mkfifo(tmp_path / "pipe", 0o600)
    for name, says in (("pipe", "not a regular file"), (".", "not a regular file"), ("none", "No such file")):
        with pytest.raises(ConfigError, match=says):
            read_key(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_key("a\0b")


def test_keys_in_a_configuration(tmp_path: Path) -> None:
    """As text, from the environment, from a file, with what they open; what is there is what `KeyAuth` takes."""
    text = f"""
auth:
  keys:
    plain: plain-key-0001
    named: os.environ/NAMED
    filed: {{key_file: {written(tmp_path)}}}
    narrow: {{key: os.environ/NARROW, models: ["claude-*", fast], streams: os.environ/STREAMS}}
operators: {{keys: {{boss: {{key: operator-key-1}}}}}}
"""
    config = loaded(tmp_path, text, NAMED="named-key-0002", NARROW="narrow-key-003", STREAMS="20")
    assert config.auth == {
        "plain": "plain-key-0001",
        "named": "named-key-0002",
        "filed": KEY,
        "narrow": ClientKey(key="narrow-key-003", models=["claude-*", "fast"], streams=20),
    }
    assert config.operators == {"boss": "operator-key-1"}
    client = KeyAuth(config.auth)({"x-api-key": "narrow-key-003"})
    assert (client.name, client.models, client.streams) == ("narrow", ("claude-*", "fast"), 20)
    assert KEY not in repr(config)


def test_keys_in_a_list_may_say_what_they_open_too(tmp_path: Path) -> None:
    """Clients without names of their own."""
    config = loaded(tmp_path, "auth: {keys: [plain-key-0001, {key: other-key-0002, streams: 1}]}")
    assert config.auth == {"client-1": "plain-key-0001", "client-2": ClientKey(key="other-key-0002", streams=1)}


def test_operators_answer_approvals_that_have_no_keys_of_their_own(tmp_path: Path) -> None:
    """And only those that have some, where they have."""
    both = "operators: {keys: {boss: operator-key-1}}\n"
    for text, name in ((both + "approvals: {timeout: 5}", "boss"), (both + "approvals: {keys: {al: operator-key-1}}", "al")):
        config = loaded(tmp_path, text)
        assert config.approvals is not None
        assert isinstance(config.approvals.auth, KeyAuth)
        assert config.approvals.auth({"x-api-key": "operator-key-1"}).name == name
        assert config.paths.approvals == "/luthien/approvals"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("auth: {keys: {a: {}}}", "auth.keys.a: needs a key or a key_file"),
        ("auth: {keys: {a: {models: [x]}}}", "auth.keys.a: needs a key or a key_file"),
        ("auth: {keys: {a: {key: plain-key-1, key_file: /x}}}", "auth.keys.a: has a key and a key_file: one of them is enough"),
        ("auth: {keys: {a: {key: 12345678}}}", "auth.keys.a.key: a key must be a string that is not blank: quote it"),
        ("auth: {keys: {a: {key: plain-key-1, modles: [x]}}}", "auth.keys.a.modles: unknown key; did you mean 'models'?"),
        ("auth: {keys: {a: {key: plain-key-1, models: claude}}}", "auth.keys.a.models: must be a list of names"),
        ("auth: {keys: {a: {key: plain-key-1, models: []}}}", "auth.keys.a.models: is empty: the key could ask for nothing"),
        ("auth: {keys: {a: {key: plain-key-1, models: [7]}}}", "auth.keys.a.models: must be a list of names, and 7 is none"),
        ("auth: {keys: {a: {key: plain-key-1, streams: 0}}}", "auth.keys.a.streams: must be positive, not 0"),
        ("auth: {keys: {a: {key: plain-key-1, streams: many}}}", "auth.keys.a.streams: must be a whole number, not 'many'"),
        ("auth: {keys: {a: {key_file: /nowhere/key}}}", "auth.keys.a.key_file: the key file /nowhere/key cannot be read"),
        ("auth: {keys: {a: plain-key-1, b: {key: plain-key-1}}}", "auth.keys.b: the same key is there twice"),
        ("operators: {keys: {a: {key: plain-key-1, models: [x]}}}", "operators.keys.a.models: unknown key"),
        ("operators: {}", "operators: keys is missing: a list of keys, or keys by name"),
        ("auth: {keys: {a: {key: plain-key-1}}}\noperators: {keys: [plain-key-1]}", "operators.keys[0]: is a client's key too"),
        ("auth: {keys: [plain-key-1]}\napprovals: {keys: {b: {key: plain-key-1}}}", "approvals.keys.b: is a client's key too"),
    ],
)
def test_a_mistake_is_told_at_its_place(tmp_path: Path, text: str, message: str) -> None:
    """With the line, and without the key."""
    said = problem(tmp_path, text)
    assert message in said
    assert len(said.splitlines()) == 1


def test_a_key_from_a_file_is_in_no_message(tmp_path: Path) -> None:
    """Also where something else repeats it."""
    text = f"auth: {{keys: {{{KEY}: {{key_file: {written(tmp_path)}}}}}}}\n"
    assert "has no name of its own" in problem(tmp_path, text)


@pytest.mark.parametrize("command", ["serve", "check", "demo", "policies", "validate"])
def test_no_option_of_the_command_line_takes_a_key(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is on a command line is in the list of processes, and in a shell's history."""
    with pytest.raises(SystemExit):
        main([command, "--help"])
    said = capsys.readouterr().out.lower()
    assert "usage" in said
    options = [word.strip("[],") for word in said.split() if word.strip("[],").startswith("-")]
    assert options
    assert not [option for option in options if any(word in option for word in ("key", "token", "secret", "password", "auth"))]
