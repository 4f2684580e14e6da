"""Fixtures of tests/ that the tests of benchmarks use too."""

from tests.conftest import one_thread as one_thread
