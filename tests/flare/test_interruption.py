"""Ctrl-C ends what was begun, whatever code it meets."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from mhsev_flare.poc.interruption import noted_interruption


def swallow_a_signal() -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
    except BaseException:
        return


def test_a_swallowed_interruption_is_raised_at_the_next_look():
    before = signal.getsignal(signal.SIGINT)
    with noted_interruption() as check:
        check()
        swallow_a_signal()
        with pytest.raises(KeyboardInterrupt):
            check()
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interruption_is_raised_at_once_where_nobody_catches_it():
    with noted_interruption(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_nothing_changes_where_signals_are_ignored_or_not_taken():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with noted_interruption() as check:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            os.kill(os.getpid(), signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)
    failed: list[BaseException] = []

    def elsewhere() -> None:
        try:
            with noted_interruption() as look:
                look()
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert failed == []
