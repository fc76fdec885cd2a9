"""Observations as checks use them: frozen values, made by pure functions from the recorded documents.

A view names the evidence file it was read from (``source``). It raises ObservationError if the facts contradict each
other, or are too few for a result.
"""
