"""The action and the container for developers: their words are those of the scripts and of the command."""

from __future__ import annotations

import json
import re
import shlex

import yaml
from support.paths import ROOT

from conformance.commands.main import make_parser

ACTION = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS = ACTION["runs"]["steps"]


def test_each_script_and_subcommand_of_the_action_exists() -> None:
    commands = make_parser()[1].choices
    said = [step["run"] for step in STEPS if "run" in step]
    assert len(said) == 3
    for script in re.findall(r"scripts/\w+", " ".join(said)):
        assert (ROOT / script).is_file()
    for words in re.findall(r"-m conformance ([^|&\n]+)", "\n".join(said)):
        name, *rest = shlex.split(words)
        commands[name].parse_args([word.replace("$LEVEL", "smoke") for word in rest])


def test_the_action_puts_no_input_into_a_shell_script() -> None:
    """An input within the text of a script would be run; as a variable it is data."""
    assert not [step["run"] for step in STEPS if "${{" in step.get("run", "")]
    assert all(step["shell"] == "sh" for step in STEPS if "run" in step)


def test_the_environment_that_is_installed_is_the_one_that_is_judged() -> None:
    first, second = STEPS[:2]
    assert first["env"]["CONFORMANCE_ENV"] == second["env"]["CONFORMANCE_ENV"] == "${{ inputs.environment }}"
    assert (ROOT / "envs" / ACTION["inputs"]["environment"]["default"] / "lock.txt").is_file()


def test_the_report_is_kept_whatever_the_verdict() -> None:
    upload = STEPS[-1]
    assert upload["uses"].startswith("actions/upload-artifact@")
    assert "cancelled" in upload["if"]
    assert upload["with"]["path"] == "${{ inputs.evidence }}"


def test_the_container_for_developers_runs_our_scripts() -> None:
    document = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text(encoding="utf-8"))
    for script in re.findall(r"scripts/\w+", document["postCreateCommand"]):
        assert (ROOT / script).is_file()
