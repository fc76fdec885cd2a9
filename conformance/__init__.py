"""Conformance of Gemma 4 multi-token prediction on vLLM: observe a real server once, judge the evidence."""

from pathlib import Path

PACKAGE = Path(__file__).parent
# Links to the checkout's top-level folders; an installed wheel holds the folders themselves.
FIXTURES = (PACKAGE / "fixtures").resolve()
LOCKS = (PACKAGE / "envs").resolve()
