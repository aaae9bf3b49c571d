"""Matplotlib, imported when it is needed."""

from kmix import _checks


def pyplot():
    """Matplotlib's pyplot, or an error that says how to get it."""
    with _checks.installed("Matplotlib", "diagnostics"):
        import matplotlib.pyplot
    return matplotlib.pyplot
