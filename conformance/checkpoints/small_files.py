"""Reads the small files of a checkpoint: configs, special tokens, chat template; and the draft's token order."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from conformance.checkpoints.headers import Damaged, read_json, read_optional_json
from conformance.profile.facts import Case

TEMPLATE, IN_JSON = "chat_template.jinja", ("tokenizer_config.json", "chat_template.json")


def small_files(folder: Path, cases: tuple[Case, ...]) -> dict[str, Any]:
    """The contents of a checkpoint's small files.

    Raises:
        Damaged: a file is missing or broken.
    """
    return {
        "config": read_json(folder / "config.json"),
        "generation_config": read_optional_json(folder / "generation_config.json"),
        "hf_quant_config": read_optional_json(folder / "hf_quant_config.json"),
        "special_tokens": special_tokens(folder),
        "chat_template": chat_template(folder, cases),
    }


def special_tokens(folder: Path) -> dict[str, int] | None:
    """The ids of the added tokens in tokenizer.json, without the ``<unusedN>``; None without such a file.

    Raises:
        Damaged: an added token has no content or id.
    """
    tokenizer = read_optional_json(folder / "tokenizer.json")
    if tokenizer is None:
        return None
    added = tokenizer.get("added_tokens") or []
    try:
        return {row["content"]: row["id"] for row in added if not row["content"].startswith("<unused")}
    except (KeyError, TypeError, AttributeError):
        raise Damaged(f"{folder / 'tokenizer.json'} has an added token without content or id") from None


def chat_template(folder: Path, cases: tuple[Case, ...]) -> dict[str, Any] | None:
    """The SHA-256 of the template, and its render of each case or its error; None without a template."""
    text = template_text(folder)
    if text is None:
        return None
    digest = hashlib.sha256(text.encode()).hexdigest()
    return {"sha256": digest, "renders": {case.id: _render(text, case) for case in cases}}


def template_text(folder: Path) -> str | None:
    """The chat template, from its own file or from the JSON of tokenizer or processor, in transformers' order."""
    if (folder / TEMPLATE).is_file():
        return (folder / TEMPLATE).read_text(encoding="utf-8")
    texts = ((read_optional_json(folder / name) or {}).get("chat_template") for name in IN_JSON)
    return next((text for text in texts if isinstance(text, str)), None)


def _render(text: str, case: Case) -> str:
    """Render by transformers' own function, so that filters and whitespace are those of a server."""
    from transformers.utils.chat_template_utils import render_jinja_template

    try:
        (render,), _ = render_jinja_template(
            conversations=[json.loads(case.messages)],
            tools=json.loads(case.tools) or None,
            chat_template=text,
            bos_token="<bos>",
            eos_token="<eos>",
            **case.options,
        )
    except Exception as error:  # templates raise errors themselves, for example for unknown roles
        return f"{type(error).__name__}: {error}"
    return str(render)


def token_order(raw: bytes, dtype: str) -> dict[str, Any]:
    """The draft's ordering of tokens: how many tokens, how many different ones, the smallest and the largest id."""
    if dtype != "I64" or not raw:
        return {"tokens": 0, "distinct": 0, "smallest": 0, "largest": 0}
    ids = np.frombuffer(raw, dtype="<i8")
    return {
        "tokens": int(ids.size),
        "distinct": int(np.unique(ids).size),
        "smallest": int(ids.min()),
        "largest": int(ids.max()),
    }
