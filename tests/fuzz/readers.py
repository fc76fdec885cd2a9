"""Every reader of text that others write, with samples of what it reads and the errors by which it may refuse."""

from __future__ import annotations

import atexit
import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conformance import FIXTURES
from conformance.checkpoints.headers import Damaged, read_headers
from conformance.checkpoints.pairing import refusals
from conformance.checkpoints.quantisation import method_of, objections
from conformance.checkpoints.small_files import special_tokens, template_text
from conformance.errors import ObservationError, Unsupported, UsageError
from conformance.evidence import attestation
from conformance.evidence.archive import unpack
from conformance.evidence.folder import read_header, verify
from conformance.evidence.journal import read_journal
from conformance.evidence.redaction import redact_command, redact_document, redact_text
from conformance.formats.canonical_json import canonical_json
from conformance.formats.decimals import last_number
from conformance.formats.json_files import parse_json
from conformance.formats.json_lines import lines_of_stream
from conformance.profile.profile import load_profile
from conformance.serving import logs, metrics
from conformance.serving.json_subprocess import Done, read_answer
from conformance.serving.start_records import read_starts
from conformance.workload.client import _Delivered
from conformance.workload.dataset import load_dataset
from conformance.workload.task_set import load_task_set

FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
atexit.register(shutil.rmtree, FOLDER, ignore_errors=True)


@dataclass(frozen=True)
class Reader:
    """``read`` returns, or raises one of ``refuses``; anything else is a failure."""

    read: Callable[[bytes], Any]
    samples: tuple[bytes, ...]
    refuses: tuple[type[Exception], ...] = ()


def text(raw: bytes) -> str:
    return raw.decode("utf-8", errors="replace")


def put(name: str, raw: bytes) -> Path:
    path = FOLDER / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(raw)
    return path


LOG = b"""INFO 11-29 14:25:00 [loader.py:7] Loading weights: 45% | 9/20
(EngineCore pid=71) ERROR 11-23 14:25:33 [core.py:1136] ValueError: 1 validation error for ModelConfig
  Value error, unknown [type=value_error, input_value=3]
(APIServer pid=70) RuntimeError: Engine core initialization failed. See root cause above.
usage: api_server.py: error: unrecognized arguments: --foo
HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz Authorization: Basic c2VjcmV0 http://me:word@hub/
"""


def read_log(raw: bytes) -> None:
    """Every reader of a log; what is redacted once has nothing more to redact."""
    path = put("mtp.log", raw)
    news = logs.News(path)
    news.any()
    assert not news.any()
    said = logs.read(path)
    logs.telling_line(said)
    logs.last_line(said)
    logs.tail(logs.read_end(path))
    logs.lines_with(said, "error")
    clean = redact_text(said, {"HF_TOKEN": "c2VjcmV0"})
    assert redact_text(clean, {"HF_TOKEN": "c2VjcmV0"}) == clean
    redact_command(said.split(), {})


PAGE = b"""# HELP vllm:spec_decode_num_drafts_total Number of drafts
# TYPE vllm:spec_decode_num_drafts counter
vllm:spec_decode_num_drafts_total{engine="0",model_name="m"} 12.0
vllm:spec_decode_num_draft_tokens_total{engine="0",model_name="m"} 24.0
vllm:spec_decode_num_accepted_tokens_total{engine="0",model_name="m"} 20.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="0"} 11.0
vllm:spec_decode_num_accepted_tokens_per_pos_total{engine="0",position="1"} 9.0 1700000000
vllm:generation_tokens_total{engine="0"} 1e2
vllm:kv_cache_usage_perc{engine="0"} NaN
"""


def read_page(raw: bytes) -> None:
    """The counters of a page; two of them can be subtracted."""
    counted = metrics.parse(text(raw))
    assert (counted - counted).generated == 0


CHUNKS: tuple[dict[str, Any], ...] = (
    {"id": "x", "model": "m", "choices": [{"index": 0, "delta": {"role": "assistant", "content": "é"}}]},
    {
        "model": "m",
        "choices": [{"index": 0, "delta": {"reasoning": "hm"}, "token_ids": [1, 2]}],
        "prompt_token_ids": [3],
    },
    {"model": "m", "choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{"}}]}}]},
    {"model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    {"model": "m", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}, "metrics": None},
    {"error": {"message": "no"}},
)
STREAM = b"".join(b"data: %b\r\n\r\n" % json.dumps(each).encode() for each in CHUNKS[:-1]) + b"data: [DONE]\n\n"


def read_stream(raw: bytes) -> None:
    """A stream has the same lines however it is cut, and is an answer or one error."""
    whole = list(lines_of_stream([raw]))
    assert whole == list(lines_of_stream([raw[i : i + 3] for i in range(0, len(raw), 3)]))
    _Delivered([(0.0, line) for line in whole], True, 1.0, "m").answer("p")


def read_whole(raw: bytes) -> None:
    _Delivered([(0.0, text(raw))], False, 1.0, None).answer("p")


ANSWER = json.dumps(
    {
        "model": "m",
        "choices": [
            {
                "finish_reason": "stop",
                "message": {"content": "a", "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]},
                "token_ids": [1],
            }
        ],
        "usage": {"prompt_tokens": 1, "completion_tokens": 2},
    }
).encode()
HEADER = json.dumps(
    {
        "hardware": "cpu",
        "pair": "p",
        "level": "smoke",
        "started": "2026-11-29T12:00:00Z",
        "vllm": "0.32.0",
        "suite": "2026.11.1",
        "format": 1,
    }
).encode()
VERDICT: dict[str, Any] = {
    **{"kind": "verdict", "id": "ACC-01", "claim": "c", "level": "qualify", "verdict": "PASS", "sentence": "s"},
    **{"seconds": 1.0, "details": "", "upstream": None, "waiver": None, "diagnoses": []},
    "findings": [{"verdict": "PASS", "sentence": "s", "value": "1", "floor": "2", "interval": [1.0, 2.0]}],
}
JOURNAL = b"\n".join(
    json.dumps(row).encode()
    for row in (
        {"kind": "header", "format": 1, "hardware": "cpu", "pair": "p", "level": "smoke", "certify": False}
        | {"unlocked": False, "expected": ["ACC-01"]},
        VERDICT,
        {"kind": "footer", "verdicts": 1, "problems": [], "exit_code": 0, "sentence": "Qualified"},
    )
)
STATEMENT = json.dumps(
    {
        "_type": attestation.STATEMENT,
        "subject": [
            {
                "name": "manifest.json",
                "digest": {"sha256": "0" * 64},
                "annotations": {"hardware": "cpu", "pair": "p", "level": "smoke", "vllm": "0.32.0"},
            }
        ],
        "predicateType": attestation.PREDICATE,
        "predicate": {
            "result": "PASSED",
            "configuration": [{"name": "header.json", "digest": {"sha256": "1" * 64}}],
            **{"passedTests": ["ACC-01"], "warnedTests": [], "failedTests": []},
        },
    }
).encode()
START = json.dumps(
    {"name": "mtp", "started": "2026-11-26T12:00:00Z", "command": ["python"], "environment": {"A": "b"}}
).encode()


def read_evidence(raw: bytes) -> None:
    put("evidence/header.json", raw)
    read_header(FOLDER / "evidence")


def read_verdicts(raw: bytes) -> None:
    read_journal(put("evidence/verdicts.jsonl", raw))


def read_manifest(raw: bytes) -> None:
    put("manifested/manifest.json", raw)
    put("manifested/header.json", HEADER)
    verify(FOLDER / "manifested")


def tar(*members: tuple[str, bytes]) -> bytes:
    """An archive of these files, uncompressed, so that an edit reaches the files."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, raw in members:
            member = tarfile.TarInfo(name)
            member.size = len(raw)
            archive.addfile(member, io.BytesIO(raw))
    return out.getvalue()


def read_archive(raw: bytes) -> None:
    """An archive is unpacked below its folder, or refused."""
    path, into = put("archives/run.tar", raw), FOLDER / "archives/unpacked"
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    try:
        assert unpack(path, into).parent == into
    finally:
        assert sorted(each.name for each in path.parent.iterdir()) == ["run.tar", "unpacked"]


def read_statement(raw: bytes) -> None:
    attestation._parse_statement(Path("attestation.json"), raw)


def read_start(raw: bytes) -> None:
    put("started/servers/mtp.json", raw)
    read_starts(FOLDER / "started")


def read_hardware(raw: bytes) -> None:
    load_profile(str(put("cpu.toml", raw)), "micro-26b-a4b-nvfp4", "smoke")


def read_pair(raw: bytes) -> None:
    load_profile("cpu", str(put("micro-26b-a4b-nvfp4.toml", raw)), "smoke")


def read_safetensors(raw: bytes) -> None:
    put("weights/model.safetensors", raw)
    for tensor in read_headers(FOLDER / "weights").values():
        assert 0 <= tensor.start <= tensor.end
        tensor.sha256()


def read_index(raw: bytes) -> None:
    put("sharded/model-00001-of-00001.safetensors", safetensors({"w": {"dtype": "BF16", "shape": [1]}}))
    put("sharded/model.safetensors.index.json", raw)
    read_headers(FOLDER / "sharded")


def safetensors(header: dict[str, Any]) -> bytes:
    """A file with this header, whose tensors have two bytes each."""
    entries = {name: {**entry, "data_offsets": [2 * i, 2 * i + 2]} for i, (name, entry) in enumerate(header.items())}
    raw = json.dumps(entries).encode()
    return len(raw).to_bytes(8, "little") + raw + b"\0\0" * len(header)


CONFIGS = FIXTURES / "models/micro-26b-a4b"
CONFIG, DRAFT_CONFIG = ((CONFIGS / name / "config.json").read_bytes() for name in ("target-nvfp4", "draft"))
TOKENIZER = b'{"added_tokens": [{"id": 2, "content": "<bos>"}, {"id": 9, "content": "<unused0>"}]}'
WEIGHTS = safetensors({"a.weight": {"dtype": "BF16", "shape": [1]}, "b.weight": {"dtype": "F16", "shape": [1, 1]}})


def read_pairing(raw: bytes) -> None:
    """Configs of both sides that do not fit are sentences."""
    for name, config in (("target", CONFIG), ("draft", raw)):
        put(f"{name}/config.json", config)
        put(f"{name}/model.safetensors", WEIGHTS)
    assert all(isinstance(each, str) for each in refusals(FOLDER / "target", FOLDER / "draft"))


def read_target_config(raw: bytes) -> None:
    put("other/config.json", raw)
    put("other/model.safetensors", WEIGHTS)
    put("draft/config.json", DRAFT_CONFIG)
    put("draft/model.safetensors", WEIGHTS)
    assert all(isinstance(each, str) for each in refusals(FOLDER / "other", FOLDER / "draft"))


def read_quantisation(raw: bytes) -> None:
    config = parse_json(raw)
    if isinstance(config, dict):
        method_of(config)
        objections(config, None, {"l.layers.0.mlp.up_proj.weight": ("U8", (4, 8))})


def read_small_files(raw: bytes) -> None:
    put("small/tokenizer.json", raw)
    put("small/tokenizer_config.json", raw)
    special_tokens(FOLDER / "small")
    template_text(FOLDER / "small")


def read_data(raw: bytes) -> None:
    load_dataset(put("data.jsonl", raw))


def read_tasks(raw: bytes) -> None:
    load_task_set(put("tasks.jsonl", raw))


def read_printed(raw: bytes) -> None:
    read_answer(Done(("x",), 1, text(raw), text(raw)), "it failed")


def read_values(raw: bytes) -> None:
    """A JSON value has one spelling, and no secret is in what is kept of it."""
    value = parse_json(raw)
    assert canonical_json(parse_json(canonical_json(value))) == canonical_json(value)
    redact_document(value, {"A_TOKEN": "secret-word"})


def read_numbers(raw: bytes) -> None:
    last_number(text(raw))


PROMPTS = b"\n".join(b'{"prompt": "What is %d?", "output_tokens": 9}' % i for i in range(10))
TASKS = b"\n".join(b'{"question": "What is %d plus 1?", "answer": "It is. #### %d"}' % (i, i + 1) for i in range(10))

READERS: dict[str, Reader] = {
    "log": Reader(read_log, (LOG,)),
    "metrics": Reader(read_page, (PAGE,), (ValueError,)),
    "stream": Reader(read_stream, (STREAM,), (Exception,)),  # the client makes one sentence of any
    "answer": Reader(read_whole, (ANSWER,), (Exception,)),
    "header": Reader(read_evidence, (HEADER,), (UsageError, ObservationError)),
    "journal": Reader(read_verdicts, (JOURNAL,), (ObservationError,)),
    "manifest": Reader(read_manifest, (b'{"format": 1, "files": {"header.json": "00"}}',), (ObservationError,)),
    "archive": Reader(
        read_archive, (tar(("run/header.json", HEADER), ("run/manifest.json", b"{}")),), (ObservationError,)
    ),
    "attestation": Reader(read_statement, (STATEMENT,), (attestation.NotAuthentic,)),
    "start": Reader(read_start, (START,), (ObservationError,)),
    "hardware": Reader(read_hardware, ((FIXTURES / "hardware/cpu.toml").read_bytes(),), (UsageError,)),
    "pair": Reader(read_pair, ((FIXTURES / "models/micro-26b-a4b-nvfp4.toml").read_bytes(),), (UsageError,)),
    "safetensors": Reader(read_safetensors, (WEIGHTS,), (Damaged,)),
    "index": Reader(read_index, (b'{"weight_map": {"w": "model-00001-of-00001.safetensors"}}',), (Damaged,)),
    "draft config": Reader(read_pairing, (DRAFT_CONFIG,)),
    "target config": Reader(read_target_config, (CONFIG,)),
    "quantisation": Reader(read_quantisation, (CONFIG,), (Unsupported, ValueError)),
    "tokenizer": Reader(read_small_files, (TOKENIZER, b'{"chat_template": "{{ x }}"}'), (Damaged,)),
    "dataset": Reader(read_data, (PROMPTS,), (UsageError,)),
    "task set": Reader(read_tasks, (TASKS,), (UsageError,)),
    "printed JSON": Reader(read_printed, (b'noise\n{"a": 1}\n',), (ObservationError,)),
    "JSON": Reader(read_values, (ANSWER, b'[1e400, 1.0, 9007199254740993, {"a": -0.0}]'), (ValueError,)),
    "numbers": Reader(read_numbers, (b"It is $1,234.50 or -3.", b"1,,2"), ()),
}
