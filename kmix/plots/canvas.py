"""Matplotlib, imported when it is needed."""

from typing import Any

from kmix import _checks


def pyplot() -> Any:
    """Matplotlib's pyplot, or an error that says how to get it."""
    with _checks.installed("Matplotlib", "diagnostics"):
        import matplotlib.pyplot
    return matplotlib.pyplot
