# SPDX-License-Identifier: MIT
"""What some tests need of the machine; without it they skip themselves."""

import os

import pytest

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
