"""What is imported for what: the package alone brings nobody, and its dependencies are those that it names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import luthien_asgi

ROOT = Path(__file__).parents[2]
PACKAGE = Path(str(luthien_asgi.__file__)).parent
WITH_OTHERS = {
    "openai": "litellm",
    "httpx": "litellm",
    "pydantic": "litellm",
    "anyio": "starlette",
    "click": "uvicorn",
}
"""What comes with a dependency, which is called with it."""
NAMES = {"yaml": "pyyaml", "sse_starlette": "sse-starlette", "tree_sitter_bash": "tree-sitter-bash", "tree_sitter": "tree-sitter"}
NAMES |= {"opentelemetry": "opentelemetry-api", "sqlglot": "sqlglot"}


@pytest.mark.parametrize("module", ["luthien_asgi", "luthien_asgi.cli", "luthien_asgi.server"])
def test_importing_brings_no_other_package(module: str) -> None:
    """Whoever only looks pays for nothing, and runs nobody's code."""
    code = (
        f"import sys; old = set(sys.modules); import {module}; print(*({{n.partition('.')[0] for n in set(sys.modules) - old}}))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(shown) - sys.stdlib_module_names == {"luthien_asgi"}


def imported() -> set[str]:
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.add(str(node.module).partition(".")[0])
    return found - sys.stdlib_module_names - {"luthien_asgi"}


def test_every_package_that_is_imported_is_named() -> None:
    """As a dependency or in an extra, or it comes with one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    listed = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    named = {re.split(r"[<>=!; ]", requirement, maxsplit=1)[0] for requirement in listed}
    assert {WITH_OTHERS.get(name, NAMES.get(name, name)) for name in imported()} - named == set()


def test_the_bad_releases_of_litellm_are_excluded() -> None:
    """Two releases carried somebody else's code."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (litellm,) = [one for one in project["dependencies"] if one.startswith("litellm")]
    assert "!=1.82.7" in litellm
    assert "!=1.82.8" in litellm
    assert "<2" in litellm
    assert not any("litellm[" in one for one in project["dependencies"])
