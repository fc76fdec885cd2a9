"""Conformance of Gemma 4 multi-token prediction on vLLM: observe a real server once, judge the evidence."""

from pathlib import Path

PACKAGE = Path(__file__).parent
FIXTURES = PACKAGE.parent / "fixtures"
