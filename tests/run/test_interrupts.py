"""What a user sees of an interrupted run; whole interrupted runs are in tests/faults/test_faults_user.py."""

from __future__ import annotations

import warnings

import pytest

from conformance.run.recorder import Recorder


def test_pytest_shows_no_traceback_of_an_object_that_an_interrupt_broke() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        Recorder.pytest_keyboard_interrupt()
        warnings.warn(pytest.PytestUnraisableExceptionWarning("Traceback …"), stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert [str(each.message) for each in shown] == ["another"]
