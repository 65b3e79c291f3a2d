"""Signals: each of them stops the client in order, and none of them in the wrong moment."""

import os
import signal

import pytest

from sglang_ic.bench.interrupts import SIGNALS, interruptible, uninterrupted


@pytest.fixture(autouse=True)
def restored():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_a_keyboard_interrupt_while_it_can_be_handled(number):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), interruptible():
        os.kill(os.getpid(), number)
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_ignored_where_it_would_leave_a_process(number):
    with interruptible():
        with uninterrupted():
            os.kill(os.getpid(), number)
        assert signal.getsignal(number) == signal.default_int_handler


def test_nohup_is_respected():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with interruptible():
        os.kill(os.getpid(), signal.SIGHUP)
