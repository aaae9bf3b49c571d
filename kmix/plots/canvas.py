"""Matplotlib, imported when it is needed."""


def pyplot():
    """Matplotlib's pyplot, or an error that says how to get it."""
    try:
        import matplotlib.pyplot
    except ImportError as error:
        raise ImportError("kmix.plots needs Matplotlib. Install it: `pip install matplotlib`.") from error
    return matplotlib.pyplot
