"""The same place generated in many ways, timed, and whether all of them give one digest.

The ways are those that the tests use on a smaller world: tests/helpers/one_world.py.
"""

from __future__ import annotations

from tests.helpers.one_world import run

__all__ = ["run"]
