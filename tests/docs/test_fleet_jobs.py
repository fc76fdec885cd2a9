"""docs/fleet: what a scheduler would say to the files, as far as that can be known without one."""

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from support.paths import ROOT

from conformance.commands.main import main

FLEET = ROOT / "docs/fleet"
JOB, ARRAY = FLEET / "job.yaml", FLEET / "array.sbatch"
SCHEMA = Draft202012Validator(json.loads((Path(__file__).parent / "job-batch-v1.json").read_text()))
# sbatch's own words, from the manual of Slurm 25.05: those that any of its clusters knows and a job like this may need.
OPTIONS = {
    *("account", "array", "constraint", "cpus-per-task", "dependency", "exclude", "exclusive", "export"),
    *("gpus-per-node", "gpus-per-task", "gres", "job-name", "mem", "nodelist", "nodes", "no-requeue", "ntasks"),
    *("ntasks-per-node", "output", "partition", "qos", "reservation", "time"),
}


@pytest.fixture
def job() -> dict[str, Any]:
    """A fresh copy, to be damaged."""
    (document,) = yaml.safe_load_all(JOB.read_text())
    return copy.deepcopy(document)


def container(job: dict[str, Any]) -> dict[str, Any]:
    (only,) = job["spec"]["template"]["spec"]["containers"]
    return dict(only)


def objections(job: dict[str, Any]) -> list[str]:
    """What Kubernetes would refuse, and what nobody should let pass."""
    spec = job["spec"]
    pod = spec["template"]["spec"]
    found = [f"{error.json_path}: {error.message}" for error in SCHEMA.iter_errors(job)]
    if spec.get("completionMode") != "Indexed" or spec["completions"] != spec["parallelism"]:
        found.append("not every index has its own node")
    if spec.get("backoffLimitPerIndex") != 0 or pod.get("restartPolicy") != "Never":
        found.append("a run is repeated until it passes")
    labels, wanted = spec["template"]["metadata"]["labels"], pod["affinity"]["podAntiAffinity"]
    (apart,) = wanted["requiredDuringSchedulingIgnoredDuringExecution"]
    if apart["topologyKey"] != "kubernetes.io/hostname" or apart["labelSelector"]["matchLabels"] != labels:
        found.append("two pods may share a node")
    if any(pod.get(name) for name in ("hostNetwork", "hostIPC", "hostPID")):
        found.append("the pod is not apart from its host")
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    for each in pod["containers"]:
        security = each.get("securityContext", {})
        if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
            found.append("the container is privileged")
        if str(each["resources"]["limits"].get("nvidia.com/gpu")) != "1":
            found.append("the container has not exactly one GPU")
        mounted = {mount["mountPath"]: mount["name"] for mount in each["volumeMounts"]}
        if not {"/suite", "/evidence"} <= mounted.keys() or not set(mounted.values()) <= volumes.keys():
            found.append("suite or evidence is not mounted")
    return found


def test_the_job_is_one_that_kubernetes_takes(job: dict[str, Any]) -> None:
    assert objections(job) == []


def unknown_key(job: dict[str, Any]) -> None:
    job["spec"]["completionsMode"] = "Indexed"


def wrong_type(job: dict[str, Any]) -> None:
    job["spec"]["completions"] = "four"


def nameless(job: dict[str, Any]) -> None:
    del job["spec"]["template"]["spec"]["containers"][0]["name"]


def not_indexed(job: dict[str, Any]) -> None:
    del job["spec"]["completionMode"]


def fewer_at_once(job: dict[str, Any]) -> None:
    job["spec"]["parallelism"] = 2


def tried_again(job: dict[str, Any]) -> None:
    job["spec"]["backoffLimitPerIndex"] = 3


def other_label(job: dict[str, Any]) -> None:
    job["spec"]["template"]["metadata"]["labels"] = {"app": "other"}


def of_the_host(job: dict[str, Any]) -> None:
    job["spec"]["template"]["spec"]["hostIPC"] = True


def privileged(job: dict[str, Any]) -> None:
    job["spec"]["template"]["spec"]["containers"][0]["securityContext"]["privileged"] = True


def without_gpu(job: dict[str, Any]) -> None:
    del job["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]


def without_suite(job: dict[str, Any]) -> None:
    del job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"][0]


def without_volume(job: dict[str, Any]) -> None:
    del job["spec"]["template"]["spec"]["volumes"][1]


@pytest.mark.parametrize(
    "damage",
    [
        *(unknown_key, wrong_type, nameless, not_indexed, fewer_at_once, tried_again),
        *(other_label, of_the_host, privileged, without_gpu, without_suite, without_volume),
    ],
)
def test_a_damaged_job_is_noticed(job: dict[str, Any], damage: Callable[[dict[str, Any]], None]) -> None:
    damage(job)
    assert objections(job)


def test_the_container_runs_what_this_command_understands(
    job: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """Its script is one for sh, and its last line a plan of the named hardware and pair."""
    found = container(job)
    assert found["command"] == ["/bin/sh", "-ceu"]
    (script,) = found["args"]
    subprocess.run(["sh", "-n", "-c", script], check=True)
    values = {each["name"]: each.get("value", "node") for each in found["env"]} | {"JOB_COMPLETION_INDEX": "0"}
    words = shlex.split(re.sub(r"\$(\w+)", lambda name: values[name[1]], script.splitlines()[-2][:-1]))
    assert words[:4] == ["exec", "/tmp/venv/bin/python", "-m", "conformance"]
    planned = [word for word in words[4:] if word != "--unlocked"]  # which no plan depends on
    assert main([*planned, "--plan"]) == 0
    assert f"{values['PAIR']} on {values['HARDWARE']}" in capfd.readouterr().out


def options_of(text: str) -> dict[str, str]:
    """Every ``#SBATCH`` line before the first command, which is where sbatch stops to look for them."""
    head = re.split(r"^[^#\n]", text, maxsplit=1, flags=re.MULTILINE)[0]
    found = [re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line) for line in head.splitlines() if "SBATCH -" in line]
    return {match[1]: match[2] or "" for match in found if match}


def test_the_array_is_a_script_with_known_options() -> None:
    text = ARRAY.read_text()
    assert text.startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", ARRAY], check=True)
    options = options_of(text)
    assert len(options) == text.count("\n#SBATCH "), "each line is one that sbatch reads"
    assert options.keys() <= OPTIONS
    assert re.fullmatch(r"\d+-\d+", options["array"])
    assert (options["nodes"], options["ntasks"], options["gpus-per-node"]) == ("1", "1", "1")
    assert {"exclusive", "no-requeue"} <= options.keys(), "a node of its own, and one try"


@pytest.mark.parametrize("line", ["#SBATCH --nodse=1", "#SBATCH nodes=1", "#SBATCH --nodes 1"])
def test_a_misspelt_option_is_noticed(line: str) -> None:
    text = ARRAY.read_text().replace("#SBATCH --nodes=1", line)
    options = options_of(text)
    assert len(options) != text.count("\n#SBATCH ") or not options.keys() <= OPTIONS


def test_an_option_below_a_command_is_none() -> None:
    assert "nodes" not in options_of(ARRAY.read_text().replace("#SBATCH --nodes=1", "true\n#SBATCH --nodes=1"))


def run_task(checkout: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """One task as Slurm would start it, over a stand-in of scripts/qualify."""
    script = checkout / "scripts/qualify"
    script.parent.mkdir(exist_ok=True)
    script.write_text('#!/bin/sh\nprintf "%s\\n" "$CONFORMANCE_ENV" "$@"\nexit 1\n')
    script.chmod(0o755)
    slurm = {"SLURM_SUBMIT_DIR": str(checkout), "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    found = {"PATH": os.environ["PATH"], "SLURMD_NODENAME": "node03"} | slurm | environment
    return subprocess.run(["bash", ARRAY], env=found, cwd="/", capture_output=True, text=True, check=False)


def test_a_task_qualifies_its_node_and_ends_as_the_run_does(tmp_path: Path) -> None:
    done = run_task(tmp_path, HARDWARE="h100", PAIR="some-pair")
    assert done.returncode == 1
    words = ["cuda", "--hardware", "h100", "--pair", "some-pair", "--evidence", "evidence/7/3-node03"]
    assert done.stdout.splitlines() == words
    done = run_task(tmp_path, HARDWARE="h100", PAIR="p", EVIDENCE="/shared", CONFORMANCE_ENV="cpu")
    assert done.stdout.splitlines()[0] == "cpu"
    assert done.stdout.splitlines()[-1] == "/shared/7/3-node03"


def test_a_task_that_was_told_too_little_says_so(tmp_path: Path) -> None:
    done = run_task(tmp_path, PAIR="some-pair")
    assert done.returncode != 0
    assert "HARDWARE: name a file of fixtures/hardware" in done.stderr
    assert done.stdout == ""


def test_the_document_leads_to_both_files() -> None:
    text = (FLEET.parent / "fleet.md").read_text()
    assert all(f"(fleet/{path.name})" in text for path in (JOB, ARRAY))
    assert "No real cluster has run either file." in text
