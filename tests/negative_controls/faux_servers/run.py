"""The command with the servers of this folder and made-up facts.

Called as ``python -m negative_controls.faux_servers.run PHASE FOLDER WORDS…``. The facts come from
FOLDER/documents.json. When it reaches PHASE, it makes the file FOLDER/reached and hangs. The name of every observation
that it makes is a line of FOLDER/made. In the phase "leaking" servers, facts and failures contain SECRETS.

FOLDER/plan.json, if there is one, says what goes wrong: ``command`` is that of the server with MTP, ``real`` names the
observations that are made and not made up, and ``hostile`` a function of hostile.py that spoils this process.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from conformance.commands import main as command
from conformance.errors import ObservationError
from conformance.evidence import folder as evidence_folder
from conformance.evidence.journal import Journal
from conformance.observers import OBSERVERS
from conformance.profile.profile import Profile
from conformance.run import judge_evidence, prefetch, pytest_plugin, session
from conformance.serving.command import Launch, vllm_environment
from conformance.serving.pool import Launcher, ServerPool
from negative_controls.faux_servers import CHATTY, PROFILE, SIZES, hostile, launch, launcher, with_prompts

SECRETS = {
    "HF_TOKEN": "the-value-of-a-token",
    "DB_PASSWORD": 'pass"word with / and space',
    "UNRELATED": "hf_abcdefghijklmnopqrstuvwxyz",
}
IN_WORKER = "negative_controls.faux_servers.in_worker"  # it imports this module
LOOKING = "draft_load"  # the observation in which the phase "observing" is reached


def leaking(good: Launch) -> Launch:
    """The same server, but it writes its environment to its log."""
    told = 'echo "$HF_TOKEN $DB_PASSWORD $UNRELATED Authorization: Basic c2VjcmV0 http://me:secret-word@hub/"'
    return replace(good, command=("sh", "-c", f'{told}; exec "$@"', "sh", *good.command))


class Hanging:
    """A function that hangs at its call number ``times``."""

    def __init__(self, folder: Path, times: int = 1) -> None:
        self.folder, self.left = folder, times

    def __call__(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            (self.folder / "reached").touch()
            time.sleep(600)


def main(phase: str, folder: Path, words: list[str]) -> int:
    """Run the command and return its exit code."""
    os.environ["FAUX_PHASE"] = phase
    vars(judge_evidence)["PLUGINS_OFF"] += ("-p", IN_WORKER)
    arrange_run(phase, folder)
    sys.argv[1:] = words
    return command.main()


def arrange_run(phase: str, folder: Path) -> None:
    """Make servers and facts faux in this process, which is the command or a worker of pytest-xdist."""
    prefetch.SLOW_IMPORTS = ()
    vars(session)["load_waivers"] = lambda _: ()
    good = launch("good", "--k", "4")
    plan = json.loads((folder / "plan.json").read_text()) if (folder / "plan.json").exists() else {}
    good = replace(good, command=tuple(plan.get("command") or good.command))
    mtp = {"loading": CHATTY, "leaking": leaking(good), "loading and leaking": leaking(CHATTY)}.get(phase, good)
    launching = launcher(mtp=mtp)
    vars(pytest_plugin)["ServerPool"] = partial(ServerPool, launcher=faithful(launching) if plan else launching)
    documents = json.loads((folder / "documents.json").read_text())
    real = set(plan.get("real", ()))
    for name in {name.partition("-")[0] for name in documents} - real:
        OBSERVERS[name] = partial(observe, name, documents, folder, phase)
    if plan:
        prefetch.OFF_LINE = ()  # their documents are made up, so no vLLM needs to be asked
    if real:
        ask_little(folder)
    arrange(phase, folder)
    getattr(hostile, plan.get("hostile", "nothing"))(folder)


def faithful(known: Launcher) -> Launcher:
    """The launches with the environment that vLLM's servers get."""

    def launching(profile: Profile, arm: str, snapshots: Path, inherited: Mapping[str, str]) -> Launch:
        environment = vllm_environment(profile, snapshots, inherited)
        return replace(known(profile, arm, snapshots, inherited), environment=environment)

    return launching


def ask_little(folder: Path) -> None:
    """Give the run a few prompts, whose answers the good server knows, and few rounds."""
    load = session.load_profile

    def with_little(*which: str) -> Profile:
        profile = replace(load(*which), prompts=folder / "asked")
        return profile if profile.level == "smoke" else replace(profile, sizes=SIZES)

    if not (folder / "asked").exists():
        with_prompts(PROFILE, folder / "asked")
    vars(session)["load_profile"] = with_little


def observe(
    name: str,
    documents: Mapping[str, Any],
    folder: Path,
    phase: str,
    _profile: Any,
    servers: ServerPool,
    *_: Any,
    group: str = "",
) -> Mapping[str, Any]:
    """A document; for ``LOOKING`` the server with MTP is started first."""
    with (folder / "made").open("a") as made:
        made.write(f"{name}\n")
    if name == LOOKING:
        servers.mtp()
        if phase == "observing":
            Hanging(folder)()
    if phase == "leaking" and name == "tools":
        raise ObservationError(f"{' '.join(SECRETS.values())} was refused", "\n".join(SECRETS.values()))
    facts: dict[str, Any] = documents[f"{name}-{group}" if group else name]
    if phase == "leaking" and name == "moe":
        facts["log_lines"] += SECRETS.values()
    return facts


def arrange(phase: str, folder: Path) -> None:
    """Prepare the hang of this phase, if it is not in an observer or a server."""
    if phase == "judging":
        before(Journal, "verdict", Hanging(folder, times=20))
    if phase == "stopping":
        before(ServerPool, "close", Hanging(folder))
    if phase == "closing":  # everything but the manifest is written by then
        write, hang = evidence_folder.write_atomically, Hanging(folder)

        def write_but_no_manifest(path: Path, text: str) -> None:
            if path.name == "manifest.json":
                hang()
            write(path, text)

        evidence_folder.write_atomically = write_but_no_manifest


def before(owner: Any, name: str, first: Callable[..., None]) -> None:
    """Call ``first`` before each call of a function."""
    call = getattr(owner, name)

    def both(*arguments: Any, **named: Any) -> Any:
        first()
        return call(*arguments, **named)

    setattr(owner, name, both)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:]))
