"""What stands where a file should: it is named, and nothing waits for it or is filled by it."""

from __future__ import annotations

import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from luthien_asgi.cli import main
from luthien_asgi.config import load
from luthien_asgi.errors import ConfigError
from luthien_asgi.key_file import read_key
from luthien_asgi.regular_file import UnusableError, read_regular

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="makes what only Unix has")

MANY = 10 * 1024**3
MODELS = "model_list: [{model_name: fast, litellm_params: {model: openai/x}}]\n"


@contextmanager
def made(kind: str, path: Path) -> Iterator[None]:
    """Put something in the place of a file."""
    with socket.socket(socket.AF_UNIX) as listening:
        match kind:
            case "a folder":
                path.mkdir()
            case "a pipe":
                os.mkfifo(path, 0o600)
            case "a socket":
                listening.bind(os.path.relpath(path))  # its whole name may be too long for one
            case "a device":
                path.symlink_to("/dev/zero")
        yield


KINDS = ["a folder", "a pipe", "a socket", "a device"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_regular_file_is_named(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As configuration and as key file, at the start; a pipe has no writer, a device has no end."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "it"
    with made(kind, path):
        with pytest.raises(ConfigError) as caught:
            load(path)
        assert str(caught.value) == f"{path}: is not a regular file, but {kind}"
        with pytest.raises(ConfigError) as caught:
            read_key(path)
        assert str(caught.value) == f"the key file {path} is not a regular file, but {kind}"


def test_a_pipe_is_not_opened(tmp_path: Path) -> None:
    """Who writes to it would think that somebody listened."""
    os.mkfifo(tmp_path / "pipe")
    watching = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with (tmp_path / "pipe").open("wb") as writer:
            writer.write(b"text")
            writer.flush()
            with pytest.raises(UnusableError, match="a pipe"):
                read_regular(tmp_path / "pipe", 10)
            assert os.read(watching, 10) == b"text"
    finally:
        os.close(watching)


def test_what_was_exchanged_while_it_was_opened_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What counts is what was opened."""
    path = tmp_path / "it"
    path.write_text("text")
    opening = os.open

    def exchanged(name: Path, flags: int) -> int:
        path.unlink()
        os.mkfifo(path)
        return opening(name, flags)

    monkeypatch.setattr(os, "open", exchanged)
    with pytest.raises(UnusableError, match="not a regular file, but a pipe"):
        read_regular(path, 10)


def test_no_more_than_is_allowed_is_read(tmp_path: Path) -> None:
    """Ten gigabytes take neither their time nor their memory."""
    path = tmp_path / "long"
    path.touch(0o600)
    os.truncate(path, MANY)
    assert len(read_regular(path, 1000)) == 1001
    with pytest.raises(ConfigError, match=r"long: is longer than 1048576 bytes"):
        load(path)
    with pytest.raises(ConfigError, match="must hold one key on one line"):
        read_key(path)


def test_links_are_followed_and_their_ends_are_looked_at(tmp_path: Path) -> None:
    """Clusters mount links; one that leads round in a circle ends too."""
    good, circle, nowhere = (tmp_path / name for name in ("good", "circle", "nowhere"))
    (tmp_path / "text").write_text("text")
    good.symlink_to("text")
    circle.symlink_to("circle")
    nowhere.symlink_to("none")
    assert read_regular(good, 10) == b"text"
    for path, says in ((circle, "symbolic links"), (nowhere, "No such file")):
        with pytest.raises(UnusableError, match=f"cannot be read: .*{says}"):
            read_regular(path, 10)


def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    """Also where the system tells no size."""
    if sys.platform == "linux":
        assert read_regular("/proc/self/status", 100_000).startswith(b"Name:")
    (tmp_path / "text").write_bytes(b"x" * 10)
    assert (read_regular(tmp_path / "text", 10), len(read_regular(tmp_path / "text", 9))) == (b"x" * 10, 10)


def test_a_key_file_that_became_a_pipe_is_a_problem_of_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says where it is named."""
    config, key = tmp_path / "luthien.yaml", tmp_path / "key"
    os.mkfifo(key, 0o600)
    config.write_text(f"{MODELS}auth: {{keys: {{a: {{key_file: {key}}}}}}}\n")
    assert main(["check", "--config", str(config)]) == 2
    assert f"{config}:2: auth.keys.a.key_file: the key file {key} is not a regular file, but a pipe" in capsys.readouterr().out
    assert stat.S_ISFIFO(key.stat().st_mode)
