"""A configuration runs the classes that the operator names, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hostile_watch import watching

from luthien_asgi.config import load
from luthien_asgi.errors import ConfigError

MODELS = "model_list: [{model_name: m, litellm_params: {model: openai/m, api_key: x}}]\n"


def refused(folder: Path, text: str) -> str:
    """Load a configuration that is to be refused, while nothing may be run; return the complaint."""
    file = folder / "luthien.yaml"
    file.write_text(MODELS + text)
    with watching() as seen, pytest.raises(ConfigError) as caught:
        load(str(file))
    assert seen.ran == []
    assert not (folder / "ran").exists()
    return str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system ['touch {0}']",
        "!!python/object/new:os.system ['touch {0}']",
        "!!python/name:os.system ''",
        "!!python/module:antigravity ''",
        "!!python/object:subprocess.Popen {{}}",
        '!!python/object/apply:builtins.eval [\'open("{0}", "w")\']',
        "!include /etc/hostname",
    ],
)
@pytest.mark.parametrize(
    "place", ["policy: {{class: ReplaceText, config: {{replacements: {0}}}}}\n", "policy: {0}\n", "x: {0}\n"]
)
def test_tags_of_yaml_make_no_objects(tmp_path: Path, place: str, value: str) -> None:
    """Whatever they name, wherever they stand."""
    said = refused(tmp_path, place.format(value.format(tmp_path / "ran")))
    assert "luthien.yaml" in said


@pytest.mark.parametrize(
    ("path", "config"),
    [
        ("os.system", "{{command: touch {0}}}"),
        ("subprocess.Popen", "{{args: [touch, {0}]}}"),
        ("subprocess.run", "{{args: [touch, {0}]}}"),
        ("builtins.eval", '{{source: \'open("{0}", "w")\'}}'),
        ("builtins.open", "{{file: {0}, mode: w}}"),
        ("pathlib.Path", "{{}}"),
        ("pickle.Unpickler", "{{}}"),
        ("logging.FileHandler", "{{filename: {0}}}"),
        ("importlib.import_module", "{{name: antigravity}}"),
        ("luthien_asgi.policy.Policy.__init__", "{{}}"),
        ("luthien_asgi.LiteLLMBackend", "{{model_list: []}}"),
    ],
)
@pytest.mark.parametrize(
    "section", ["policy: {{class: {path}, config: {config}}}\n", "record: {{sink: {path}, config: {config}}}\n"]
)
def test_what_is_no_policy_and_no_recorder_is_not_called(tmp_path: Path, section: str, path: str, config: str) -> None:
    """It is refused by what it is, before it is made."""
    said = refused(tmp_path, section.format(path=path, config=config.format(tmp_path / "ran")))
    assert path.rpartition(".")[2] in said or path.partition(".")[0] in said
