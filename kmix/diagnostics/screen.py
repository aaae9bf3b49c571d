"""A table as text, for a terminal."""

import io
import shutil
import textwrap


def render(title, columns, rows, notes=()):
    """A table as text: drawn by rich where it is installed, else aligned with spaces.

    Args:
        title: The line above the table.
        columns: The names of the columns.
        rows: Rows of texts, as many as there are columns. Columns of numbers are aligned to the right.
        notes: Paragraphs below the table.

    Returns:
        The text, without a line break at its end.

    Example:
    >>> from kmix.diagnostics.screen import render
    >>> "error" in render("Scores", ["metric", "mean"], [["error", "0.12"]], ["One seed."])
    True
    """
    width = shutil.get_terminal_size((100, 24)).columns
    right = [_is_numeric([row[i] for row in rows]) for i in range(len(columns))]
    try:
        text = _rich(title, columns, rows, right, width)
    except ImportError:
        text = _plain(title, columns, rows, right)
    return "\n".join([text, *(textwrap.fill(note, width) for note in notes)])


def _is_numeric(cells):
    return any(cells) and all(cell.strip()[:1] in "+-0123456789" for cell in cells if cell.strip())


def _rich(title, columns, rows, right, width):
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for column, is_right in zip(columns, right, strict=True):
        table.add_column(column, justify="right" if is_right else "left", no_wrap=is_right)
    for row in rows:
        table.add_row(*row)
    # Cells are text, not markup: an interval stands in brackets.
    file = io.StringIO()
    Console(file=file, width=width, markup=False, emoji=False, highlight=False, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def _plain(title, columns, rows, right):
    widths = [max(map(len, column)) for column in zip(columns, *rows, strict=True)]
    lines = [columns, ["-" * width for width in widths], *rows]
    texts = [
        "  ".join(cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(line, widths, right, strict=True))
        for line in lines
    ]
    return "\n".join([title, *(text.rstrip() for text in texts)])
