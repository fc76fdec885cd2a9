"""From a check that did not pass to what was asked and answered: requests, answers side by side, lines of logs.

Everything comes from recorded evidence. The cases are those that the sentence of the check names.
"""

from __future__ import annotations

import functools
import html
import json
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.errors import ObservationError, Unsupported
from conformance.evidence.folder import read_header
from conformance.evidence.redaction import redact_text
from conformance.formats.json_files import parse_json
from conformance.judging.diagnose import load_known_failures
from conformance.judging.verdict import Record, Verdict
from conformance.profile.arms import MTP, PLAIN
from conformance.reports.source import Source
from conformance.serving import logs
from conformance.serving.start_records import read_starts
from conformance.views.chat import Answer, Chat
from conformance.views.served.cut_answers import name_of
from conformance.workload import cut_questions
from conformance.workload.prompts import MIXED, TOOLS
from conformance.workload.questions import QUESTIONS

MOST_CASES = 3  # of a check
LONGEST_ANSWER = 3000  # characters
LONGEST_BODY = 6000  # of a request on the command line
LOG_LINES = 12
AROUND = 2  # lines before and after a line that tells something
NAMES = {PLAIN: "without MTP", MTP: "with MTP"}
TROUBLE = re.compile(r"\b(ERROR|CRITICAL|Traceback|\w+Error:)")
ASKED = {"tools": TOOLS, "task_score": QUESTIONS, "load": MIXED, "near_ties": MIXED}  # files in the folder of prompts
CHATS, COMPLETIONS = "/v1/chat/completions", "/v1/completions"

Document = Mapping[str, Any]


@dataclass(frozen=True)
class Side:
    """One answer, cut where it first differs from the other one; ``differing`` is empty if nothing differs."""

    name: str
    shared: str
    differing: str = ""
    rest: str = ""

    @property
    def text(self) -> str:
        """The whole answer."""
        return self.shared + self.differing + self.rest


@dataclass(frozen=True)
class Case:
    """One request that the check is about, with its answers; ``curl`` is empty if the request was not kept."""

    id: str
    curl: str
    expected: str
    sides: tuple[Side, ...]


@dataclass(frozen=True)
class Excerpt:
    """Lines of one log."""

    file: str  # as the evidence names it
    lines: str


@dataclass(frozen=True)
class DrillDown:
    """What is behind the verdict of one check; ``left`` is how many named cases are not shown."""

    cases: tuple[Case, ...]
    excerpts: tuple[Excerpt, ...]
    files: tuple[str, ...]
    left: int = 0

    @property
    def size(self) -> int:
        """Its bytes on a page."""
        texts = [side.text for case in self.cases for side in case.sides]
        texts += [text for case in self.cases for text in (case.curl, case.expected)]
        return sum(len(html.escape(text).encode()) for text in [*texts, *(each.lines for each in self.excerpts)])


@dataclass(frozen=True)
class _Server:
    """Where the request of a curl line goes."""

    url: str
    model: str


def drill_down(record: Record, source: Source) -> DrillDown:
    """The requests, answers and log lines behind one verdict. Damaged evidence gives less, and no error."""
    files = tuple(dict.fromkeys(name for each in record.findings for name in each.source.split(", ") if name))
    server, rows = _server(source), _rows(source.profile.prompts)
    found: dict[str, Case] = {}
    left = 0
    for case in _cases(record, files, source, server, rows):
        if case.id in found:
            continue
        if len(found) < MOST_CASES:
            found[case.id] = case
        else:
            left += 1
    return DrillDown(tuple(found.values()), tuple(_excerpts(record, source.evidence.logs)), files, left)


def side_by_side(answers: Sequence[tuple[str, str]]) -> tuple[Side, ...]:
    """The answers, (name, text) each, with the first word marked where the two differ."""
    texts = [text[:LONGEST_ANSWER] + " (...)" * (len(text) > LONGEST_ANSWER) for _, text in answers]
    if len(texts) < 2 or texts[0] == texts[1]:
        return tuple(Side(name, text) for (name, _), text in zip(answers, texts, strict=True))
    pairs = zip(texts[0], texts[1], strict=False)
    place = next((i for i, (one, other) in enumerate(pairs) if one != other), min(map(len, texts)))
    return tuple(_cut(name, text, place) for (name, _), text in zip(answers, texts, strict=True))


def _cut(name: str, text: str, place: int) -> Side:
    end = re.compile(r"\S*").match(text, place)
    stop = max(end.end() if end else place, min(place + 1, len(text)))
    return Side(name, text[:place], text[place:stop] or "(its end)", text[stop:])


def _cases(record: Record, files: Sequence[str], source: Source, server: _Server, rows: _Rows) -> Iterator[Case]:
    """The cases that the sentence names, from each file that the findings name."""
    text = " ".join([record.sentence, *(each.sentence for each in record.findings)])
    for file in files:
        name = Path(file).stem
        try:
            document = source.observation(name)
        except (ObservationError, Unsupported):
            continue
        read: Callable[[Document, str, _Server, _Rows], Iterator[Case]] = _generic_cases
        if name.startswith("chat-"):
            read = _chat_cases
        elif name == "cut_answers":
            read = _cut_cases
        elif name in ("load", "near_ties"):
            document, read = source.observation("load") if source.holds("load") else {}, _load_cases
        yield from read(document, text, server, replace(rows, file=ASKED.get(name, "")))


@functools.cache
def _rows(folder: Path) -> _Rows:
    """The rows of a folder, which is read once for all verdicts."""
    return _Rows.read(folder)


def _named(id: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(id)}(?![\w-])", text) is not None


def _chat_cases(document: Document, text: str, server: _Server, _rows: _Rows) -> Iterator[Case]:
    """Chats with known answers: the way that is wrong with MTP, beside the same way without."""
    answers = Chat.of([document]).answers
    for id, case in document["cases"].items():
        if not _named(id, text):
            continue
        of_case = [each for each in answers if each.case.id == id]
        first, other = _telling_pair(of_case, text)
        shown = [(NAMES[each.server], _chat_text(each)) for each in (other, first) if each]
        expected = {key: value for key, value in case["expected"].items() if value not in (None, [], ())}
        body = first.case.question()
        body |= {**body.pop("extra_body"), "temperature": 0}
        curl = _curl(server, CHATS, {"model": server.model, **body})
        yield Case(id, curl, json.dumps(expected, ensure_ascii=False), side_by_side(shown))


def _telling_pair(answers: Sequence[Answer], text: str) -> tuple[Answer, Answer | None]:
    """An answer with MTP and the one without that was asked in the same way: the pair that the sentence is about."""
    plain = {each.way: each for each in answers if each.server == PLAIN}
    pairs = [(each, plain.get(each.way)) for each in answers if each.server == MTP]
    named = [pair for pair in pairs if pair[0].where in text]
    unlike = [(mtp, other) for mtp, other in pairs if other and _chat_text(mtp) != _chat_text(other)]
    return [*named, *unlike, *pairs][0]


def _chat_text(answer: Answer) -> str:
    """An answer as a reader sees it: thoughts, content and calls, or the error."""
    parts = [f"[thought] {answer.reasoning}"] if answer.reasoning else []
    parts += [answer.content] if answer.content else []
    parts += [f"[call] {call.name}({call.arguments})" for call in answer.calls]
    parts += [f"[error] {answer.error}"] if answer.error else []
    return "\n".join([*parts, f"[finish_reason] {answer.finish_reason}"])


def _load_cases(document: Document, text: str, server: _Server, rows: _Rows) -> Iterator[Case]:
    """Timed prompts: the first round in which the two answers differ, else the first round."""
    for id in document.get("prompts", {}):
        if not _named(id, text):
            continue
        pairs = list(_pairs(document, id))
        if pairs:
            plain, mtp = next((pair for pair in pairs if pair[0] != pair[1]), pairs[0])
            shown = [(NAMES[arm], said) for arm, said in ((PLAIN, plain), (MTP, mtp)) if said is not None]
            yield Case(id, rows.curl(id, server), "", side_by_side(shown))


def _pairs(document: Document, id: str) -> Iterator[tuple[str | None, str | None]]:
    """The texts without and with MTP of each round that asked the prompt."""
    for each in document["rounds"]:
        if id in each["prompts"] and not each["warm_up"]:
            place = each["prompts"].index(id)
            without, mtp = (each[arm] and each[arm]["answers"][place]["text"] for arm in (PLAIN, MTP))
            yield without, mtp


def _cut_cases(document: Document, text: str, server: _Server, _rows: _Rows) -> Iterator[Case]:
    """Answers that ``max_tokens`` cuts, with MTP beside the one without, and the whole answer."""
    for mtp, plain in zip(document["arms"][MTP], document["arms"][PLAIN], strict=True):
        name, question = name_of(mtp), mtp["question"]
        if not re.search(rf"{re.escape(name)}(?!,)", text):
            continue
        body = {"model": server.model, **cut_questions.QUESTIONS[question], "temperature": 0}
        curl = _curl(server, CHATS, body | {"max_tokens": mtp["max_tokens"], "stream": mtp["stream"]})
        shown = [(NAMES[arm], _reply_text(row["reply"])) for arm, row in ((PLAIN, plain), (MTP, mtp))]
        yield Case(name.rstrip(","), curl, f"a part of {_reply_text(document['whole'][question])}", side_by_side(shown))


def _reply_text(reply: Document) -> str:
    """A recorded reply as a reader sees it."""
    if not reply["choices"]:
        return f"[error] {reply['status']} {reply['message']}"
    said = reply["choices"][0]
    parts = [f"[thought] {said['reasoning']}"] if said.get("reasoning") else []
    parts += [said["text"]] if said.get("text") else []
    parts += [f"[call] {call['name']}({call['arguments']})" for call in said.get("calls", [])]
    return "\n".join([*parts, f"[finish_reason] {said['finish_reason']}"])


def _generic_cases(document: Document, text: str, server: _Server, rows: _Rows) -> Iterator[Case]:
    """Any other observation: the rows with an id that the sentence names, as they were recorded."""
    for row in _rows_with_id(document):
        if _named(row["id"], text):
            arms = [(NAMES[arm], _pretty(row[arm])) for arm in (PLAIN, MTP) if row.get(arm) is not None]
            rest = {key: value for key, value in row.items() if key not in ("id", "expected")}
            expected = row.get("expected")
            yield Case(
                row["id"],
                rows.curl(row["id"], server),
                "" if expected is None else _pretty(expected),
                side_by_side(arms or [("recorded", _pretty(rest))]),
            )


def _rows_with_id(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        if isinstance(node.get("id"), str):
            yield node
        for value in node.values():
            yield from _rows_with_id(value)
    elif isinstance(node, list):
        for value in node:
            yield from _rows_with_id(value)


def _pretty(value: Any) -> str:
    """A recorded value; numbers of a list stand in one line."""
    if isinstance(value, str):
        return value
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return re.sub(r"\[[\s\d.,e+-]+\]", lambda found: re.sub(r"\s+", " ", found[0]), text)


@dataclass(frozen=True)
class _Rows:
    """The rows of a folder of prompts, by id and file, and the requests that they stand for."""

    found: Mapping[str, Mapping[str, Document]]
    file: str = ""  # whose row counts where several files have the id

    @staticmethod
    def read(folder: Path) -> _Rows:
        """The rows of the folder, or of the suite's own if there is no such folder."""
        found: dict[str, dict[str, Document]] = {}
        for path in sorted((folder if folder.is_dir() else FIXTURES / "prompts").glob("*.jsonl")):
            for line in path.read_text(encoding="utf-8").split("\n"):  # strings may hold other line ends
                row = parse_json(line) if line.strip() else None
                if isinstance(row, dict) and isinstance(row.get("id"), str):
                    found.setdefault(row["id"], {}).setdefault(path.name, row)
        return _Rows(found)

    def curl(self, id: str, server: _Server) -> str:
        """The curl line that asks a row; empty if the row is no request, or if nobody knows which row it is."""
        rows = self.found.get(id, {})
        file = next(iter(rows), "") if len(rows) == 1 else self.file
        row = rows.get(file, {})
        where = f"# the body is the row {id!r} of {file}"
        if "path" in row:
            body = row.get("raw", json.dumps(row.get("body")) if "body" in row else None)
            return _curl(server, row["path"], body, row.get("method", "POST"), where)
        if "messages" in row:
            names = ("messages", "max_tokens", "tools", "chat_template_kwargs")
            body = {"model": server.model, **{key: row[key] for key in names if row.get(key)}, "temperature": 0}
            return _curl(server, CHATS, body, where=where)
        if "text" in row:
            body = {"model": server.model, "prompt": row["text"], "max_tokens": 64, "temperature": 0}
            return _curl(server, COMPLETIONS, body, where=where)
        return ""


def _curl(server: _Server, path: str, body: Any, method: str = "POST", where: str = "") -> str:
    """One line for a shell; a body that is too long for it is named instead."""
    text = body if isinstance(body, str) else json.dumps(body, ensure_ascii=False)
    text = redact_text(text.replace("$MODEL", server.model))
    words = ["curl", "-s", *(["-X", method] if method != "POST" else []), server.url + path]
    if body is None:
        return shlex.join(words)
    words += ["-H", "Content-Type: application/json", "-d"]
    if len(text) > LONGEST_BODY:
        return f"{shlex.join(words)} @body.json  {where or '# the body is too long for a page'}"
    return f"{shlex.join(words)} {shlex.quote(text)}"


def _server(source: Source) -> _Server:
    """The server with MTP as it was started or attached; the usual address if nothing is recorded."""
    header = read_header(source.evidence.directory)
    url, model = header.attached or "http://127.0.0.1:8000", header.attached_model or "MODEL"
    try:
        starts = {start.name: start.command for start in read_starts(source.evidence.directory)}
    except ObservationError:
        starts = {}
    command = starts.get(MTP, ())
    if port := _option(command, "--port"):
        url = f"http://127.0.0.1:{port}"
    return _Server(url, _option(command, "--served-model-name") or _option(command, "--model") or model)


def _option(command: Sequence[str], name: str) -> str:
    places = [place for place, word in enumerate(command[:-1]) if word == name]
    return command[places[-1] + 1] if places else ""


def _excerpts(record: Record, folder: Path) -> Iterator[Excerpt]:
    """The lines of each log that a known failure's signature matches, with lines around.

    Without a known failure, those are the first errors of the logs, and only for a check that failed.
    """
    ids = {diagnosis.id for diagnosis in record.diagnoses}
    signatures = [each.signature for each in load_known_failures(FIXTURES / "known_failures") if each.id in ids]
    patterns = [re.compile(signature) for signature in signatures] or [TROUBLE] * (record.verdict is Verdict.FAIL)
    for path in sorted(folder.glob("*.log")) if folder.is_dir() else ():
        lines = logs.read(path).splitlines()
        hits = [number for number, line in enumerate(lines) if any(each.search(line) for each in patterns)]
        kept = sorted({near for hit in hits[:LOG_LINES] for near in range(hit - AROUND, hit + AROUND + 1)})
        shown = [lines[number][:500] for number in kept if 0 <= number < len(lines)][:LOG_LINES]
        if shown:
            yield Excerpt(f"logs/{path.name}", "\n".join(shown))
