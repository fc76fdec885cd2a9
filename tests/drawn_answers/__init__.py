"""Gives the installed vLLM's parser far more drawn answers than a run does, and counts the kinds of findings."""
