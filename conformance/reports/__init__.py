"""Renderers: a run in, text out. They decide nothing."""
