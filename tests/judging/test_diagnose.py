"""Known failures: every signature finds the words it was written for, and keeps quiet elsewhere."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from support.paths import ROOT

from conformance import FIXTURES
from conformance.errors import UsageError
from conformance.evidence.folder import Evidence
from conformance.judging.check import FAMILIES
from conformance.judging.diagnose import KnownFailure, diagnose, load_known_failures

RESULTS = ROOT / "docs" / "results"
KNOWN = load_known_failures(FIXTURES / "known_failures")

# id -> (check, words as upstream's logs or this suite's messages have them)
EXAMPLES = {
    "GRAPHMAX": (
        "GRAPH-01",
        "gb10 with k = 6: a step of 6 of 6 requests, up to 42 tokens, has no graph (NONE); captured up to 40, "
        "of --max-cudagraph-capture-size 42",
    ),
    "GRAPHDEFAULT": (
        "GRAPH-01",
        "gb10 with k = 4: a step of 103 to 128 of 128 requests, up to 640 tokens, has no graph (NONE); "
        "captured up to 512",
    ),
    "GRAPHGAP": (
        "GRAPH-01",
        "gb10 with k = 2: a step of 4 of 8 requests, up to 12 tokens, "
        "computes attention outside its graph (PIECEWISE); captured up to 24",
    ),
    "GRAPH-ARMS": (
        "ARM-01",
        "compilation_config.cudagraph_capture_sizes is 1 … 320 (43 values) with MTP and 1 … 64 (11 values) without",
    ),
    "CPU-GRAPHS": ("GRAPH-02", "The servers of hardware cpu capture no CUDA graphs: it is a CPU."),
    "DYNAMIC-CAPTURE": (
        "DRAFT-01",
        'File "vllm/v1/worker/gpu/input_batch.py", line 135, in make_dummy\n'
        "    assert 0 < num_reqs <= num_tokens\nAssertionError",
    ),
    "DYNAMIC-PIECEWISE": (
        "SPEED-01",
        "Dynamic speculative decoding changes the target verification length at runtime. Overriding cudagraph_mode "
        "from FULL_AND_PIECEWISE to PIECEWISE for reliability.",
    ),
    "PREFIX-TEXT": (
        "FEATURE-01",
        '"second" and the cold answer with MTP differ at token 1, where the most likely token leads by 3.00 nats',
    ),
    "PREFIX-RETENTION": (
        "FEATURE-02",
        '"longer prompt that begins alike" without MTP found nothing in the cache, though it holds this prompt; '
        '"longer prompt that begins alike" with MTP found nothing in the cache, though it holds this prompt',
    ),
    "PREFIX-MISS": ("FEATURE-02", '"second" with MTP found nothing in the cache, though it holds this prompt'),
    "PENALTY-IGNORED": ("FEATURE-03", '"frequency_penalty" is ignored with MTP'),
    "BAD-WORDS": ("FEATURE-03", '"bad_words of two tokens" is ignored with MTP'),
    "STOP-SURPLUS": (
        "FEATURE-04",
        '"stop string inside a block" has token_ids [20, 21, 22, 23] with MTP, [20, 21, 22] without',
    ),
    "OPTION-REFUSED": (
        "FEATURE-05",
        "vLLM refuses min_p, logit_bias with MTP: The min_p and logit_bias sampling parameters are not yet supported "
        "with speculative decoding.",
    ),
    "CPU-INVARIANCE": (
        "FEATURE-15",
        "batch invariance beside MTP: CPUUnquantizedExperts: kernel does not support batch invariance",
    ),
    "CPU-LORA": (
        "FEATURE-16",
        "LoRA beside MTP: TritonExperts: kernel does not support current device cpu",
    ),
    "ONE-WORKER": ("FEATURE-20", "one worker beside MTP: one worker needs 2 workers, and 1 serves"),
    "CPU-RUNNER": ("FEATURE-18", "model runner V2 beside MTP: Model Runner V2 requires Triton."),
    "LOGPROBS-WRONG": ("FEATURE-06", "tale-0 with MTP has zeros only in logprobs"),
    "CUT-CALL": (
        "FEATURE-08",
        'the call cut after 4 tokens has 4 tokens and finish_reason "tool_calls" where 4 and "length" are right',
    ),
    "CHUNK-DECODE": (
        "FEATURE-10",
        "an answer of 40 tokens among long prompts with and without MTP differ at token 5, where the most likely token "
        "leads by 3.00 nats",
    ),
    "PREEMPT-STALE": ("FEATURE-11", "request 2 in the crowd with MTP got no answer: RemoteProtocolError"),
    "SEED-IGNORED": ("FEATURE-12", "seed 11 gives another token at 3 the second time with MTP"),
    "INVARIANT-DRAFT": (
        "FEATURE-15",
        "the answers to request 2 in the crowd with MTP, and a few at a time without, differ at token 7, where the "
        "most likely token leads by 0.00 nats",
    ),
    "BUDGET-IGNORED": ("FEATURE-13", "the answer with a budget of 4 with MTP has a thought of 10 tokens"),
    "PROMPT-LOGPROBS": (
        "FEATURE-07",
        "tale-0 has -0.900 where -4.500 is right in prompt_logprobs at place 2 with MTP, which is 3.600 nats off",
    ),
    "GRAMMAR500": ("API-07", "broken-grammar got HTTP 500 where 400 or 422 is right: Internal server error"),
    "BAREVAL": (
        "PARSE-03",
        'untyped arguments: <|tool_call>call:set_values{a:null}<tool_call|> is parsed as [{"name": "set_values"}]',
    ),
    "UNIONSTR": (
        "PARSE-02",
        'unions arguments: <|tool_call>call:set_values{a:<|"|>null<|"|>}<tool_call|> is parsed as []',
    ),
    "SCHEMAREF": (
        "PARSE-07",
        'value changed: below $ref (in 116 of 400 answers): "<|tool_call>"',
    ),
    "SCHEMAUNION": ("PARSE-07", 'value changed: below anyOf (in 6 of 400 answers): "<|tool_call>"'),
    "SCHEMAOPEN": ("PARSE-07", 'value changed: additionalProperties (in 6 of 400 answers): "<|tool_call>"'),
    "LONGNUM": ("PARSE-09", 'value changed: long integer as a number (in 42 of 400 answers): "<|tool_call>"'),
    "JSONQUOTES": ("PARSE-10", 'value changed: JSON quotes inside (in 3 of 400 answers): "<|tool_call>"'),
    "MARKMISSING": ("PARSE-10", 'leaked mark: no opening mark (in 4 of 400 answers): "<|tool_call>"'),
    "NOCALLPREFIX": ("PARSE-10", 'lost in silence: no call: and no arguments (in 13 of 400 answers): "<|tool_call>"'),
    "EQUALSIGNS": ("PARSE-10", 'lost in silence: parentheses and equals signs (in 1 of 400 answers): "<|tool_call>"'),
    "TEXTAFTER": ("PARSE-10", 'lost in silence: text around calls (in 15 of 400 answers): "Let me see."'),
    "STREAMNAME": ("PARSE-10", 'value changed: blanks around the name (in 17 of 400 answers): "<|tool_call>"'),
    "CUTCALL": ("PARSE-11", 'value changed: cut name (in 96 of 1037 answers): "<|tool_call>call:sear"'),
    "OPENTHOUGHT": (
        "PARSE-12",
        'value changed: no channel where the prompt opens one, deliveries differ (in 1 of 42 answers): "Hello you."',
    ),
    "NOCHANNELBEGIN": (
        "PARSE-12",
        'value changed: a channel without its begin, deliveries differ (in 5 of 42 answers): "I look."',
    ),
    "REASONLEAK": (
        "REASON-03",
        "result-thinking-00 (not streamed, with MTP): a thought in content: 'thought I have the result.'",
    ),
    "THINKDEF": ("GRAMMAR-01", "forced-omitted-00 (not streamed, with MTP): content is not JSON: 'First the fox'"),
    "GRAMMAR-SPEC": (
        "GRAMMAR-02",
        'forced-thinking-01 (not streamed, with MTP): content is not JSON: {"a": 1}{"a": 1}',
    ),
    "INTSIZE": (
        "DRAFT-01",
        "model.layers.0.mlp.down_proj.weight is [1024, 4096] where [1024, 8192] is expected",
    ),
    "QUANTLEAK": (
        "DRAFT-02",
        "model.layers.0.mlp.gate_up_proj.weight is uint8 where bfloat16 is expected",
    ),
    "EP-DENSE-DRAFT": (
        "FEATURE-17",
        "expert_parallel-mtp server exited with code 1 after 69 s: ValidationError: Value error, Number of experts in "
        "the model must be greater than 0 when expert parallelism is enabled.",
    ),
    "DRAFTQUANT": ("ACC-01", "RuntimeError: start (4096) + length (4096) exceeds dimension size (4096)."),
    "TIED-HEAD": (
        "DRAFT-01",
        'File "vllm/model_executor/layers/quantization/base_config.py", line 55, in tie_weights\n'
        "    raise NotImplementedError\nNotImplementedError",
    ),
    "GPU-SHARED-START": (
        "DRAFT-01",
        "AssertionError: Error in memory profiling. Initial free memory 77.85 GiB, current free memory 78.36 GiB.",
    ),
    "NO-FLASHINFER": (
        "DRAFT-01",
        'File "vllm/v1/sample/ops/topk_topp_sampler.py", line 44, in flashinfer_sampler_supported\n'
        "ModuleNotFoundError: No module named 'flashinfer'",
    ),
    "NO-CUTLASS-DSL": (
        "DRAFT-01",
        'File "vllm/vllm_flash_attn/cute/interface.py", line 14, in <module>\n    import cutlass\n'
        "ModuleNotFoundError: No module named 'cutlass'",
    ),
    "SUPPRESS-CAP": (
        "DRAFT-01",
        "RuntimeError: Cannot copy between CPU and CUDA tensors during CUDA graph capture unless the "
        "CPU tensor is pinned.",
    ),
    "EMBGUARD": ("ACC-01", "RuntimeError: mat1 and mat2 shapes cannot be multiplied (8192x3840 and 5632x1024)"),
    "ACC0": ("ACC-01", "acceptance length 1.008 [1.004, 1.012] misses 3.68"),
    "KVSCALE": (
        "ACC-02",
        "joint acceptance at position 1 0.712 [0.700, 0.724] misses 0.85\nnon-default args: {'kv_cache_dtype': 'fp8'}",
    ),
    "BLOCKTABLE": ("SPEED-02", "RuntimeError: batch_size must be equal to batch_size_k"),
    "CENTROIDS-CPU": ("DRAFT-01", "RuntimeError: Tried to instantiate dummy base class CUDAGraph"),
    "NOSUPPORT": ("DRAFT-01", "ValueError: Unsupported speculative method: 'mtp'"),
    "ASSISTANT-UNKNOWN": (
        "DRAFT-01",
        "The checkpoint you are trying to load has model type `gemma4_assistant` but Transformers does not recognize "
        "this architecture",
    ),
    "PER-LAYER-CONFIG": ("DRAFT-01", "AmbiguousGlobalPerLayerAttributeError: 'head_dim' is a per-layer attribute"),
    "NVFP4-KEY": ("DRAFT-01", "KeyError: 'layers.0.moe.experts.0.down_proj.input_global_scale'"),
    "NVFP4-CPU": (
        "DRAFT-01",
        "NotImplementedError: No NvFp4 MoE backend supports the deployment configuration.",
    ),
    "GELU-MARLIN": ("MOE-01", "language_model.model.layers.0 is MARLIN where FLASHINFER_CUTLASS is expected"),
    "FP8-AMPERE": ("ACC-01", "ValueError: type fp8e4nv not supported in this architecture"),
    "MARLIN-NULL": ("NUM-01", "model.layers.14.experts is all zeros where at most 2.00% is expected"),
    "CPU-LINEAR": ("SPEED-05", "WARNING [utils.py:597] Failed to create oneDNN linear, fallback to torch linear."),
    "CPU-AMX": ("ACC-01", "Worker proc VllmWorker-0 died unexpectedly (exit code: -4), shutting down executor."),
    "CPU-REJECTION": ("PARITY-01", "TypeError: Cannot inspect kernel parameters for function <function kernel>"),
    "CPU-SLOTS": (
        "TOOL-01",
        "line 31, in _compute_slot_mapping_kernel_impl\n assert block_size * BLOCKS_PER_KV_BLOCK == "
        "KV_CACHE_BLOCK_SIZE\n RuntimeError: Boolean value of Tensor with more than one value is ambiguous",
    ),
    "CPU-GELU-TANH": ("DRAFT-01", "AssertionError: MoEActivation.GELU_TANH is not supported."),
    "CPU-GUMBEL": (
        "DRAFT-01",
        "TypeError: _sample_recovered_tokens_kernel_impl() got an unexpected keyword argument 'USE_FP64_GUMBEL'",
    ),
    "CALL-AS-TEXT": (
        "PARSE-01",
        'scalars arguments: <|tool_call>call:set_values{v:null}<tool_call|> is parsed as {"reasoning": "", "content": '
        '"<|tool_call>call:set_values{v:null}<tool_call|>", "calls": []} (token by token) where [] is expected',
    ),
    "EXPONENT": (
        "PARSE-06",
        "published arguments: <|tool_call>call:set_values{value:1e+308}<tool_call|> is parsed as "
        '[{"name": "set_values", "arguments": {"value": "1e+308"}}] (whole) where [] is expected',
    ),
    "CPU-SYNTHETIC": ("CAL-01", "AssertionError: Synthetic acceptance not supported with CPU sampling"),
    "CPU-TEMPERATURE": ("LOSS-04", "the distributions differ: p = 2e-89 (G = 460.6, 14 degrees of freedom, n = 993)"),
    "TOOLARGS": ("TOOL-02", 'weather-01 is get_weather({}) where get_weather({"city": "Oslo"}) is expected'),
    "TOOLLEAK": ("TOOL-01", "no call but the text <|tool_call>call:get_weather{}"),
    "NOFLAGS": ("TOOL-01", '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'),
    "GRAMMAR-FSM": ("TOOL-01", "Failed to advance FSM for request chatcmpl-1"),
    "TP-IMA": (
        "ACC-01",
        "    self._centroids_graphs[size].replay()\n"
        "torch.AcceleratorError: CUDA error: an illegal memory access was encountered",
    ),
    "FI-B200": (
        "DRAFT-01",
        'File "vllm/v1/attention/backends/flashinfer.py", line 2214, in forward\n'
        "    trtllm_batch_decode_with_kv_cache(\nRuntimeError: Error in function 'run'",
    ),
    "FI-SM90-FP8": (
        "DRAFT-01",
        "Using FLASHINFER attention backend out of potential backends: ['FLASHINFER', 'TRITON_ATTN'].\n"
        'File "vllm/v1/attention/backends/flashinfer.py", line 700, in __init__\n    raise',
    ),
    "FI-NONEKV": (
        "DRAFT-01",
        'File "vllm/v1/attention/backends/flashinfer.py", line 2100, in forward\n'
        "    key = key[:num_actual_tokens]\nTypeError: 'NoneType' object is not subscriptable",
    ),
    "DRAFT-MOE": (
        "DRAFT-01",
        "quantization=modelopt_fp4, quantization_config=None\n"
        "ValueError: moe_backend='marlin' is not supported for unquantized MoE. Expected one of ['triton'].",
    ),
    "MRV-FALLBACK": (
        "DRAFT-09",
        "Model Runner V2 does not yet support kv_connector, dcp; using the V1 model runner instead.",
    ),
    "NODRAFT": (
        "SPEED-01",
        "with config: model='/model', speculative_config=SpeculativeConfig(method='mtp', model='/model', "
        "num_spec_tokens=4), tokenizer='/model'",
    ),
    "PP": ("DRAFT-01", "NotImplementedError: Pipeline parallelism is not supported for this model. Supported models"),
    "CPU-OLD": ("DRAFT-01", "AssertionError: spec decode is not supported."),
    "12B-FALLBACK": ("ACC-01", "RuntimeError: Shape mismatch: a.size(1) = 4096, size_k = 8192"),
    "SMEM": (
        "DRAFT-01",
        "triton.runtime.errors.OutOfResources: out of resource: shared memory, Required: 98304, Hardware limit: 65536.",
    ),
    "UMA": (
        "DRAFT-01",
        "ValueError: Free memory on device cuda:0 (52.1/121.7 GiB) on startup is less than desired GPU memory "
        "utilization (0.55, 66.9 GiB).",
    ),
    "PERF-0.23": (
        "SPEED-02",
        "max_num_scheduled_tokens is set to 4096 based on the speculative decoding settings. This may lead to",
    ),
    "PAD": ("LOSS-03", "code-00 has <pad> at token 2 with MTP"),
    "JSON-LOOP": ("GRAMMAR-01", "strict-00 (not streamed, with MTP): finish_reason is length where stop is expected"),
}

ASSERTION = """\
  File "/usr/lib/python3.12/site-packages/vllm/model_executor/models/gemma4_mtp.py", line 430, in load_weights
    weight_loader(param, loaded_weight)
  File "/usr/lib/python3.12/site-packages/vllm/model_executor/parameter.py", line 175, in load_merged_column_weight
    assert param_data.shape == loaded_weight.shape
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
AssertionError"""

# The same failures in other words: those of a server that died, or of a check that saw them.
OTHER_WORDS = [
    ("INTSIZE", "ACC-01", ASSERTION),
    ("INTSIZE", "SPEED-01", "Initializing a V1 LLM engine (v0.20.2rc1.dev49+g9b4e83934) with config: model='/model'"),
    ("QUANTLEAK", "TOOL-01", ASSERTION),
    (
        "QUANTLEAK",
        "ACC-01",
        "MTP_LOAD_STACKED name='layers.0.mlp.gate_up_proj.weight' param=[16384, 512] loaded=[8192, 1024] shard_id=0",
    ),
    ("QUANTLEAK", "ACC-01", "gate_up_proj param=[16384,512] loaded=[8192,1024]"),
    ("QUANTLEAK", "LOSS-01", "down_proj param=[1024,4096] loaded=[1024,8192]"),
    ("EMBGUARD", "DRAFT-04", '"the draft uses the target\'s embedding" is False where True is expected'),
    ("EMBGUARD", "DRAFT-04", "the embedding is the target's is False where True is expected"),
    ("KVSCALE", "DRAFT-09", "layer 0 k is 1.0 where 0.003 is expected"),
    ("UMA", "DRAFT-01", "NVRM: GPU0 _memdescAllocInternal: NV_ERR_NO_MEMORY"),
    (
        "12B-FALLBACK",
        "DRAFT-01",
        "RuntimeError: Gemma4ReasoningParser reasoning parser could not locate think start/end tokens",
    ),
    ("PAD", "TOOL-10", "load-00 (not streamed, with MTP): raw <pad> in content: 'It is<pad>' (right without MTP)"),
]

# What the logs of docs/results hold, of healthy runs but for two that died.
RECORDED = {
    "h100/bf16-eager": {"GRAMMAR-FSM"},  # an answer to API-07's grammars
    "h100/bf16-eager-chats": set(),
    "h100/geometry-eager": {"GELU-MARLIN"},
    "h100/geometry-graphs": {"GELU-MARLIN"},
    "h100/nvfp4-eager": {"GELU-MARLIN"},
    "h100/nvfp4-eager-chats": {"GELU-MARLIN"},
    "h100/nvfp4-graphs": {"GELU-MARLIN", "SUPPRESS-CAP"},  # died
    "h100/nvfp4-graphs-soak": set(),
    "h100/nvfp4-graphs-unsuppressed": {"GELU-MARLIN", "GRAMMAR-FSM"},
    "h100/old-runner": {"GELU-MARLIN", "EMBGUARD"},  # died
    "h200-x2/26b-a4b-nvfp4-tp2": set(),
    "h200-x2/nvfp4-tp2": set(),
    "h200-x2/nvfp4-tp2-smoke": set(),
    "h200/bf16-graphs": set(),
    "h200/nvfp4-graphs": set(),
    "h200/nvfp4-marlin-smoke": {"GELU-MARLIN"},
    "h200/seed-launch-graphs": set(),
}

HEALTHY_LOG = """\
INFO 11-23 15:05:48 [nvfp4.py:242] Using 'FLASHINFER_CUTLASS' NvFp4 MoE backend out of potential backends: ['MARLIN'].
INFO 11-23 15:05:48 conformance: NVFP4 MoE decoded to BF16 for the CPU (last resort), served by CPUUnquantizedExperts, \
since vLLM says: No NvFp4 MoE backend supports the deployment configuration.
INFO 11-23 15:05:49 [gemma4.py:88] Gemma4 MTP: sharing target model's backbone-dim embed_tokens with the draft.
INFO 11-23 15:05:50 Using TRITON_ATTN attention backend out of potential backends: ['TRITON_ATTN'].
WARNING 11-23 15:05:51 [vllm.py:2228] Model Runner V2 does not yet support the thinking_token_budget request \
parameter. Set VLLM_USE_V2_MODEL_RUNNER=0 if this is required.
INFO 11-23 15:05:51 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/pair/target', \
speculative_config=SpeculativeConfig(method='mtp', model='/pair/draft', num_spec_tokens=4), quantization=None, \
quantization_config=None
ERROR 11-23 15:05:52 [core.py:1330] ValueError: moe_backend='cutlass' is not supported for unquantized MoE.
INFO:     Application startup complete.
"""


def test_every_known_failure_has_an_example_here() -> None:
    assert {failure.id for failure in KNOWN} == EXAMPLES.keys()
    assert len(KNOWN) == len(EXAMPLES), "an id was used twice"


@pytest.mark.parametrize(
    ("id", "check", "words"), [*((id, *example) for id, example in EXAMPLES.items()), *OTHER_WORDS]
)
def test_a_signature_finds_its_words(id: str, check: str, words: str) -> None:
    assert id in {diagnosis.id for diagnosis in diagnose(check, f"before\n{words}\nafter", KNOWN)}


@pytest.mark.parametrize("check", [f"{family}-01" for family in FAMILIES])
def test_healthy_words_match_nothing(check: str) -> None:
    assert diagnose(check, HEALTHY_LOG, KNOWN) == ()


@pytest.mark.parametrize("run", RECORDED)
def test_recorded_logs_match_what_happened(run: str, tmp_path: Path) -> None:
    folder = run.rpartition("/")[2]
    with tarfile.open(RESULTS / f"{run}.tar.gz") as archive:
        logs = [member for member in archive.getmembers() if member.name.startswith(f"{folder}/logs/")]
        archive.extractall(tmp_path, logs, filter="data")
    text = Evidence(tmp_path / folder, recording=False).log_tails()
    found = {failure.id for failure in KNOWN if re.search(failure.signature, text)}
    assert text
    assert found == RECORDED[run]


def test_every_recorded_run_is_looked_at() -> None:
    recorded = {str(path.relative_to(RESULTS)).removesuffix(".tar.gz") for path in RESULTS.glob("*/*.tar.gz")}
    assert recorded == RECORDED.keys()


def test_no_signature_looks_ahead_from_every_character() -> None:
    """Four logs would be read a quarter of a million times, which takes a minute."""
    assert [failure.id for failure in KNOWN if re.search(r"(^|\|)(\(\?s\))?\(\?=", failure.signature)] == []


def test_a_known_failure_explains_only_its_own_checks() -> None:
    _, words = EXAMPLES["GELU-MARLIN"]
    assert not diagnose("TOOL-01", words, KNOWN)
    assert diagnose("SPEED-02", "Using 'MARLIN' NvFp4 MoE backend out of potential backends: []", KNOWN)


def test_a_call_as_text_is_no_loss_of_types() -> None:
    words = "arguments: <|tool_call>call:set_values{g:null}<tool_call|> is parsed as "
    text = (
        '{"reasoning": "", "content": "<|tool_call>call:set_values{g:null}<tool_call|>", "calls": []} (token by token)'
    )
    for check, kind in (("PARSE-02", "unions"), ("PARSE-03", "untyped")):
        assert [found.id for found in diagnose(check, f"{kind} {words}{text}", KNOWN)] == ["CALL-AS-TEXT"]


def test_checks_that_are_named_exist() -> None:
    assert {check.partition("-")[0] for failure in KNOWN for check in failure.checks} <= {"*", *FAMILIES}


@pytest.mark.parametrize(
    ("version", "ending"),
    [
        ("0.20.0", "Fixed in vLLM 0.21.0."),
        ("0.32.0+cpu", "Fixed in vLLM 0.21.0, so under 0.32.0+cpu it may have come back."),
        (None, "Fixed in vLLM 0.21.0."),
        ("a-local-build", "Fixed in vLLM 0.21.0."),
    ],
)
def test_a_fixed_failure_says_since_when(version: str | None, ending: str) -> None:
    known = KnownFailure("X", ("*",), "boom", "vllm#1", "Take another.", "0.21.0")
    (diagnosis,) = diagnose("ACC-01", "boom", [known], version)
    assert diagnosis.advice == f"Take another. {ending}"


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ('id = "X"', 'key "failure.0.checks" is missing'),
        ('id = "X"\nchecks = ["*"]\nsignature = "("\nupstream = "u"\nadvice = "a"', "regular expression"),
        ('id = "X"\nchecks = ["*"]\nsignature = "s"\nupstream = "u"\nadvise = "a"', "advi[cs]e"),
        (
            'id = "X"\nchecks = ["*"]\nsignature = "s"\nupstream = "u"\nadvice = "a"\nsince = "next"',
            "a release of vLLM",
        ),
    ],
)
def test_a_bad_row_is_refused_by_name(tmp_path: Path, row: str, sentence: str) -> None:
    (tmp_path / "k.toml").write_text(f"[[failure]]\n{row}\n")
    with pytest.raises(UsageError, match=sentence) as caught:
        load_known_failures(tmp_path)
    assert "k.toml" in str(caught.value)
