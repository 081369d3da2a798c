# SPDX-License-Identifier: MIT
"""What the mediator tells the service manager (sd_notify)."""
import socket

import pytest


@pytest.fixture
def listening(directory):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.settimeout(60)
    sock.bind(str(directory / "notify"))
    with sock:
        yield sock


def test_ready_then_the_watchdog_then_stopping(new_mediator, listening):
    mediator = new_mediator()
    mediator.environment = {
        "NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "100000"}
    mediator.start()
    assert listening.recv(100) == b"READY=1"
    for _ in range(3):
        assert listening.recv(100) == b"WATCHDOG=1"
    mediator.stop()
    rest = []
    while b"STOPPING=1" not in rest:
        rest.append(listening.recv(100))


def test_no_watchdog_without_being_asked(new_mediator, listening):
    mediator = new_mediator()
    mediator.environment = {"NOTIFY_SOCKET": listening.getsockname()}
    mediator.start()
    mediator.stop()
    assert [listening.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]


def test_a_watchdog_of_another_process_is_not_ours(new_mediator, listening):
    mediator = new_mediator()
    mediator.environment = {
        "NOTIFY_SOCKET": listening.getsockname(), "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"}
    mediator.start()
    mediator.stop()
    assert [listening.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
