"""Fixtures of the unit tests."""

import pytest
from kernel_harness import EXAMPLE


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "example.c"
    path.write_text(EXAMPLE)
    return path
