"""A good server: it answers like vLLM, drafts if it is told to, and counts a moment after it answers.

``--fault`` gives it one fault.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import mischief  # this file is run as a script

LATE_SECONDS = 0.05
TOKENS = 9  # of every answer: one from the prompt, then two drafts of 4 with 3 of them accepted each
DRAFTS, PER_POSITION = 2, (2, 2, 2, 0)
PROMPT_IDS = [2, 105, 106]
SHIFT = 0.25  # nats
TIRED_SECONDS = 5.5  # of load, after which some faults appear
SLOW_SECONDS = 7.0  # in the middle of a load of 12 s, so that neither its first nor its last third has both speeds
_MODEL = {
    "class": "M",
    "parameters": {"w": {"kind": "parameter", "shape": [2, 2], "dtype": "bfloat16", "aliases": []}},
    "linears": {},
    "moe": {},
}
PROBE_ANSWERS: dict[str, Any] = {
    "conformance_snapshot": {"vllm_version": "0", "rank": 0, "models": {"draft": _MODEL, "target": _MODEL}},
    "conformance_describe": {"vllm_version": "0"},
    "conformance_config": {"vllm_version": "0", "fields": {"scheduler_config.max_num_seqs": 24}},
    "conformance_coins_begin": {"vllm_version": "0"},
    "conformance_coins_end": {"drafts": 1000},
    "conformance_synthetic_rates": {"vllm_version": "0"},
    "conformance_kernels_begin": {"vllm_version": "0"},
    "conformance_kernels_end": {"activity": "CPU", "executed": {"_C::cpu_fused_moe": 90}},
    "conformance_moe": {
        "vllm_version": "0",
        "layers": {"l0": {"experts": "E", "backend": "CPU", "quant_method": "Q"}},
    },
}


class State:
    """The state of the server."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.name: str = options.served_model_name
        self.k: int = options.k
        self.fault: str = options.fault
        self.seconds: float = options.seconds
        self.late: float = options.late
        self.key: str = options.key
        self.models: list[str] = [self.name, *options.also]
        self.looks = 0
        self.probe = json.loads(options.probe)
        self.lock = threading.Lock()
        speculative = json.loads(options.speculative_config or "{}")
        self.length: int = speculative.get("num_speculative_tokens", self.k)  # tokens drafted a step, up to k
        self.tells: bool = options.per_request_spec_decode_metrics == "summary"
        self.answered = self.generated = self.drafted = self.asked = 0
        if self.fault == "leaks":
            threading.Thread(target=leak, daemon=True).start()
        self.loaded = 0.0  # when the load began
        self.per_position = [0] * self.k

    def rubbish(self, question: dict[str, Any]) -> bool:
        self.asked += 1
        late = self.fault == "rubbish from the third on" and self.asked > 2
        late = late or (self.fault == "rubbish now and then" and self.asked % 50 == 0)
        return late or (self.fault == "rubbish" and question["max_tokens"] > 1)

    def tire(self) -> None:
        """The faults that appear only under a long load."""
        self.loaded = self.loaded or (time.monotonic() if self.asked > 5 else 0.0)
        held = time.monotonic() - self.loaded if self.loaded else 0.0
        if held > SLOW_SECONDS and self.fault == "slows down":
            time.sleep(0.2)
        if held > TIRED_SECONDS and self.fault == "dies":
            os._exit(3)

    def count(self, tokens: int, length: int) -> None:
        with self.lock:
            self.generated += tokens
            if tokens == TOKENS:
                self.answered += 1
                self.drafted += DRAFTS * length
                for position in range(length):
                    self.per_position[position] += PER_POSITION[position]

    def speculation(self) -> dict[str, Any]:
        accepted = sum(PER_POSITION[: self.length])
        histogram = [0] * (self.k + 1)
        histogram[accepted // DRAFTS] = DRAFTS
        return {
            "acceptance_histogram": histogram,
            "num_spec_steps": DRAFTS,
            "num_accepted_draft_tokens": accepted,
            "num_draft_tokens": DRAFTS * self.length,
        }

    def metrics(self) -> str:
        with self.lock:
            self.looks += 1
            others = self.looks if self.fault == "is asked by others too" else 0
            rows = {"vllm:generation_tokens_total": self.generated + others}
            if self.k:
                miscounted = self.answered if self.fault == "miscounts" else 0
                rows |= {
                    "vllm:spec_decode_num_drafts_total": DRAFTS * self.answered,
                    "vllm:spec_decode_num_draft_tokens_total": self.drafted,
                    "vllm:spec_decode_num_accepted_tokens_total": sum(self.per_position) + miscounted,
                }
            positions = list(self.per_position[: self.k])
        lines = [f'{name}{{engine="0",model_name="{self.name}"}} {value}.0' for name, value in rows.items()]
        for position, value in enumerate(positions):
            labels = f'engine="0",model_name="{self.name}",position="{position}"'
            lines.append(f"vllm:spec_decode_num_accepted_tokens_per_pos_total{{{labels}}} {value}.0")
        return mischief.metrics(self.fault, "\n".join(lines) + "\n", self.looks)


def leak() -> None:
    """Leak about twenty MiB a second."""
    lost = []
    while True:
        lost.append(os.urandom(1 << 20))
        time.sleep(0.05)


class Handler(BaseHTTPRequestHandler):
    state: State
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def send(self, body: str, kind: str = "application/json", status: int = 200) -> None:
        raw = body.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def refuses(self) -> bool:
        """Whether the request is refused. The faults that never answer, never end or repeat the key are here too."""
        given = self.headers.get("Authorization", "")
        if self.state.fault == "hangs":
            time.sleep(600)
        chats = self.path == "/v1/chat/completions" and self.state.asked
        if self.state.fault == "never ends" or (self.state.fault == "talks for ever later on" and chats):
            self.send_response(200)
            self.end_headers()
            while True:
                self.wfile.write(b" ")
                time.sleep(0.05)
        if self.state.fault == "repeats the key" and self.path == "/v1/chat/completions":
            self.send(json.dumps({"error": f"you sent {given}"}), status=500)
            return True
        if not self.state.key or given == f"Bearer {self.state.key}" or not self.path.startswith("/v1"):
            return False
        self.send(json.dumps({"error": "Unauthorized"}), status=401)
        return True

    def do_GET(self) -> None:
        if self.refuses():
            return
        if self.state.fault == "rubbish from the start":
            self.send("<html>It works!</html>", "text/html")
        elif self.path == "/v1/models":
            self.send(json.dumps({"object": "list", "data": [{"id": name} for name in self.state.models]}))
        elif self.path == "/metrics":
            self.send(self.state.metrics(), "text/plain")
        else:
            self.send("")

    def do_POST(self) -> None:
        question = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.refuses():
            return
        if self.path == "/collective_rpc" and self.state.fault == "no dev mode":
            self.send("{}", status=404)
        elif self.path == "/collective_rpc" and question["method"] == "conformance_draft_length":
            self.state.length = question["kwargs"]["k"]
            self.send(json.dumps({"results": [{"vllm_version": "0", "k": self.state.length}]}))
        elif self.path == "/collective_rpc":
            print(question["method"], flush=True)
            answer = self.state.probe or PROBE_ANSWERS.get(question["method"])
            self.send(json.dumps({"results": [answer]} if answer else {"error": "unknown"}))
        elif self.path == "/v1/completions" and "n" not in question:
            self.send(json.dumps(self.frame("text_completion", self.completions(question), 1)))
        elif refused := mischief.refusal(self.state.fault, self.state.asked + 1):
            self.state.asked += 1
            self.send(refused[1], status=refused[0])
        elif self.state.rubbish(question):
            self.send("<html>It works!</html>", "text/html")
        elif self.path == "/v1/completions":
            self.samples(question)
        else:
            self.answer(question)

    def answer(self, question: dict[str, Any]) -> None:
        state = self.state
        length = state.length  # read it now: the client may set another one as soon as it has its answer
        time.sleep(state.seconds)
        state.tire()
        tokens = min(TOKENS, question["max_tokens"])
        if state.fault == "loses a token":
            tokens -= tokens == TOKENS
        if state.fault == "no first token":
            tokens = 0
        if question.get("stream"):
            self.stream(question, tokens)
        else:
            self.whole(question, tokens)
        if state.fault != "never counts":
            asked, late = min(TOKENS, question["max_tokens"]), LATE_SECONDS
            if asked == TOKENS:
                late, state.late = state.late, late
            threading.Timer(late, state.count, [asked, length]).start()

    def samples(self, question: dict[str, Any]) -> None:
        """Token t of the answer to seed s is s + t, modulo 3."""
        seeds = range(question["seed"], question["seed"] + question["n"])
        places = range(question["max_tokens"])
        choices = [{"index": i, "token_ids": [(s + t) % 3 for t in places]} for i, s in enumerate(seeds)]
        self.send(json.dumps(self.frame("text_completion", choices, 0)))

    def whole(self, question: dict[str, Any], tokens: int) -> None:
        message: dict[str, Any] = {
            "role": "assistant",
            "content": "".join(self.pieces(question)),
            "tool_calls": [],
            "reasoning": None,
        }
        if question.get("tools"):
            calls = [self.call(question)] * (3 if self.state.fault == mischief.GOES_ON else 1)
            message |= {"content": None, "reasoning": "hm", "tool_calls": calls}
        choice = {
            "index": 0,
            "finish_reason": mischief.finish(self.state.fault),
            "message": message,
            "token_ids": list(range(tokens)),
        }
        frame = self.frame("chat.completion", [choice], tokens)
        self.send(json.dumps(frame | {"prompt_token_ids": PROMPT_IDS}))

    def completions(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        """Continuations with two logprobs for each token; in a batch they are further apart, by ``SHIFT``."""
        lead = 4.0 + SHIFT * (len(question["prompt"]) > 1)
        top = {"token_id:1": -0.5, "token_id:2": -0.5 - lead}
        places = {name: {"logprob": logprob} for name, logprob in top.items()}
        tokens = min(question["max_tokens"], TOKENS)
        return [
            {
                "index": index,
                "text": "",
                "finish_reason": "stop",
                "token_ids": list(range(tokens)),
                "logprobs": {"tokens": [], "token_logprobs": [], "top_logprobs": [top] * tokens, "text_offset": []},
                "prompt_logprobs": [None, *[places] * (len(prompt) - 1)],
            }
            for index, prompt in enumerate(question["prompt"])
        ]

    def stream(self, question: dict[str, Any], tokens: int) -> None:
        deltas: list[dict[str, Any]] = [{"content": piece} for piece in self.pieces(question)]
        if question.get("tools"):
            call = self.call(question)
            arguments = call["function"]["arguments"]
            first = {**call, "index": 0, "function": {"name": call["function"]["name"], "arguments": ""}}
            pieces = [{"index": 0, "function": {"arguments": piece}} for piece in (arguments[:4], arguments[4:])]
            deltas = [{"reasoning": "hm"}, *({"tool_calls": [piece]} for piece in (first, *pieces))]
            if self.state.fault == mischief.GOES_ON:
                deltas += [{"tool_calls": [{**call, "index": number}]} for number in (1, 2)]
        choices: list[dict[str, Any]] = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
        finish = mischief.finish(self.state.fault)
        choices.append({"index": 0, "delta": {}, "finish_reason": finish, "token_ids": list(range(tokens))})
        chunks = [self.frame("chat.completion.chunk", [choice], None) for choice in choices]
        chunks[0]["prompt_token_ids"] = PROMPT_IDS
        chunks.append(self.frame("chat.completion.chunk", [], tokens))
        body = "".join(f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"
        whole = self.state.fault != "cuts its streams" or self.state.asked < mischief.SPOILED
        if whole:
            self.send(mischief.stream(self.state.fault, body), "text/event-stream")
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body.encode())))
        self.end_headers()
        self.wfile.write(body.encode()[: len(body) // 2])
        self.close_connection = True

    def frame(self, kind: str, choices: list[Any], tokens: int | None) -> dict[str, Any]:
        usage = {"prompt_tokens": 3, "completion_tokens": tokens, "total_tokens": 12} if tokens is not None else None
        told = {"metrics": {"speculative_decoding": self.state.speculation()}} if self.state.tells else {}
        other = self.state.fault == "answers for another" and self.state.asked > 1
        name = "somebody-else" if other else self.state.name
        row = {"id": "x", "object": kind, "created": 1, "model": name, "choices": choices, "usage": usage}
        return row | (told if usage else {})

    def pieces(self, question: dict[str, Any]) -> list[str]:
        said = question["messages"][-1]["content"]
        wrong = self.state.fault == "is wrong about odd numbers" and said[-1] in "13579"
        return ["echo ", f"not {said}" if wrong else said]

    @staticmethod
    def call(question: dict[str, Any]) -> dict[str, Any]:
        name = question["tools"][0]["function"]["name"]
        return {"id": "c", "type": "function", "function": {"name": name, "arguments": '{"city": "Oslo"}'}}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--served-model-name", required=True)
    parser.add_argument("--k", type=int, default=0)
    parser.add_argument("--fault", default="")
    parser.add_argument("--seconds", type=float, default=0.01, help="for one answer")
    parser.add_argument("--late", type=float, default=LATE_SECONDS, help="seconds until a whole answer counts, once")
    parser.add_argument("--key", default="", help="that clients must bear")
    parser.add_argument("--also", nargs="*", default=[], help="more models that it serves")
    parser.add_argument("--probe", default="null", help="JSON to answer every question to the workers with")
    parser.add_argument("--per-request-spec-decode-metrics", default="none")
    parser.add_argument("--speculative-config", default="")
    parser.add_argument("--enforce-eager", action="store_true")
    parser.add_argument("--says", default="", help="a line of its log")
    parser.add_argument(
        "--wants", default="", help="a setting NAME=VALUE or NAME=BEGIN… without which it does not start"
    )
    options = parser.parse_args()
    name, _, wanted = options.wants.partition("=")
    begin, rest, _ = wanted.partition("…")
    given = os.environ.get(name)
    if given != (wanted or None) and not (rest and given and given.startswith(begin)):
        raise ValueError(f"{name} is {os.environ.get(name)}")
    print(options.speculative_config, options.says, sep="\n", flush=True)
    print("INFO 11-23 14:25:00 [api_server.py:1] Using CPU Unquantized MoE backend", flush=True)
    Handler.state = State(options)
    mischief.settle(options.fault)
    ThreadingHTTPServer((options.host, options.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
