"""Renderers: they turn a run into text and decide nothing."""
