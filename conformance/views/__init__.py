"""Observations as checks see them: frozen values made by pure functions of the recorded documents.

A view knows the evidence file it was read from (``source``), and raises ObservationError where the facts contradict
each other or are too few to say anything.
"""
