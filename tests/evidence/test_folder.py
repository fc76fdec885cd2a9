"""The evidence directory: made once, valid, whole, and never written again."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence import folder as module
from conformance.evidence.folder import Evidence, is_finished, is_free, read_header, verify
from conformance.run.session import new_header_here

SCHEMA = {
    "type": "object",
    "properties": {"n": {"type": "integer"}},
    "required": ["n"],
    "additionalProperties": False,
}


class Observer:
    """Counts how often it was asked."""

    def __init__(self, answer: Mapping[str, Any] | Exception) -> None:
        self.answer = answer
        self.calls = 0

    def __call__(self) -> Mapping[str, Any]:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def evidence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Evidence:
    schemas = tmp_path / "schemas"
    schemas.mkdir()
    (schemas / "count.schema.json").write_text(json.dumps(SCHEMA))
    monkeypatch.setattr(module, "SCHEMAS", schemas)
    evidence = Evidence(tmp_path / "run", recording=True)
    evidence.begin(new_header_here("cpu", "some-pair", "qualify"), {})
    return evidence


def never() -> Mapping[str, Any]:
    raise AssertionError("must not be observed again")


def test_an_observation_is_made_once_and_then_read(evidence: Evidence) -> None:
    observer = Observer({"n": 3})
    assert evidence.observe("count", observer) == {"n": 3}
    assert evidence.observe("count", observer) == {"n": 3}
    assert observer.calls == 1


def test_workers_at_once_observe_once(evidence: Evidence) -> None:
    observer = Observer({"n": 3})
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: Evidence(evidence.directory, True).observe("count", observer), range(16)))
    assert found == [{"n": 3}] * 16
    assert observer.calls == 1


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        (ObservationError("the server died", "last words"), ObservationError),
        (Unsupported("vLLM 0.1 has no such thing"), Unsupported),
        (ZeroDivisionError("a defect of the observer"), ObservationError),
    ],
)
def test_a_failure_to_observe_is_kept_and_raised_again(
    evidence: Evidence, raised: Exception, kind: type[Exception]
) -> None:
    observer = Observer(raised)
    for _ in range(2):
        with pytest.raises(kind, match=str(raised)):
            evidence.observe("count", observer)
    assert observer.calls == 1


def test_the_log_tail_comes_back_with_the_error(evidence: Evidence) -> None:
    with pytest.raises(ObservationError) as caught:
        evidence.observe("count", Observer(ObservationError("died", "last words")))
    assert caught.value.log_tail == "last words"


@pytest.mark.parametrize("answer", [{"n": "three"}, {}, {"n": 1, "more": 2}])
def test_a_document_in_another_shape_is_an_error(evidence: Evidence, answer: Mapping[str, Any]) -> None:
    with pytest.raises(ObservationError, match="does not match its schema"):
        evidence.observe("count", Observer(answer))


def test_an_observation_without_schema_is_an_error(evidence: Evidence) -> None:
    with pytest.raises(ObservationError, match="no observation 'other'"):
        evidence.observe("other", Observer({"n": 1}))


def test_a_damaged_file_is_an_error(evidence: Evidence) -> None:
    evidence.observe("count", Observer({"n": 3}))
    (evidence.directory / "observations/count.json").write_text('{"n":')
    with pytest.raises(ObservationError, match="cannot be read"):
        evidence.observe("count", never)


def test_judging_again_never_observes(evidence: Evidence) -> None:
    again = Evidence(evidence.directory, recording=False)
    with pytest.raises(ObservationError, match="was not recorded"):
        again.observe("count", never)


def test_the_first_header_holds(evidence: Evidence) -> None:
    first = read_header(evidence.directory)
    later = Evidence(evidence.directory, True).begin(new_header_here("gb10", "other-pair", "smoke"), {})
    assert later == first
    assert (first.hardware, first.pair, first.level) == ("cpu", "some-pair", "qualify")


def test_one_session_owns_it(evidence: Evidence) -> None:
    evidence.own()
    with pytest.raises(UsageError, match="still being recorded by another process: wait for its end, or record"):
        Evidence(evidence.directory, True).own()
    evidence.release()
    next_one = Evidence(evidence.directory, True)
    next_one.own()
    evidence.finish()
    next_one.release()
    verify(evidence.directory)
    assert not (evidence.directory / ".locks").exists()


def test_what_was_never_begun_is_gone_again(tmp_path: Path) -> None:
    for directory in (tmp_path / "new", tmp_path / "old"):
        evidence = Evidence(directory, True)
        evidence.own()
        if directory.name == "old":
            (directory / "thesis.txt").write_text("years of work")
        evidence.release()
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_file_is_no_folder_to_record_into(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=r"file cannot be recorded into \(.*\): choose another folder\."):
        Evidence(tmp_path / "file", True).own()


def test_until_it_has_a_header_a_run_may_begin_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evidence, write = Evidence(tmp_path / "run", True), module.write_atomically
    header = new_header_here("cpu", "some-pair", "smoke")

    def killed(path: Path, text: str) -> None:
        assert is_free(evidence.directory)
        if path.name == "header.json":
            raise KeyboardInterrupt
        write(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(module, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            evidence.begin(header, {"by": "the one that was killed"})
    assert is_free(evidence.directory)
    evidence.begin(header, {"by": "the next"})
    assert "the next" in evidence.profile.read_text()
    assert not is_free(evidence.directory)
    assert evidence.logs.is_dir()


def test_a_folder_without_header_is_no_evidence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no evidence: it has no header\.json"):
        read_header(tmp_path)


def test_finished_evidence_verifies(evidence: Evidence) -> None:
    evidence.observe("count", Observer({"n": 3}))
    (evidence.logs / "server.log").write_text("hello")
    assert not is_finished(evidence.directory)
    evidence.finish()
    assert is_finished(evidence.directory)
    verify(evidence.directory)
    assert not list(evidence.directory.rglob("*.lock"))


def append(path: Path) -> None:
    path.write_text(path.read_text() + " ")


def add(path: Path) -> None:
    path.with_name("added.json").write_text("{}")


@pytest.mark.parametrize(
    ("tamper", "sentence"), [(append, "was changed"), (Path.unlink, "is missing"), (add, "was added")]
)
def test_tampering_is_noticed(evidence: Evidence, tamper: Callable[[Path], None], sentence: str) -> None:
    evidence.observe("count", Observer({"n": 3}))
    evidence.finish()
    tamper(evidence.directory / "observations/count.json")
    with pytest.raises(ObservationError, match=sentence):
        verify(evidence.directory)


def test_log_tails_are_the_ends_of_all_logs(evidence: Evidence) -> None:
    (evidence.logs / "a.log").write_text("x" * 100 + "the end of a")
    (evidence.logs / "b.log").write_text("b")
    assert evidence.log_tails(12) == "the end of a\nb"
