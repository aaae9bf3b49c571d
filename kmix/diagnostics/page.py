"""A page of HTML that holds all it shows: no script, no style sheet, no picture from elsewhere."""

import base64
import html
import io

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; margin: 0 auto; padding: 1rem;
       max-width: 70rem; }
h1 { font-size: 1.4rem; line-height: 1.25; margin: 0.5rem 0; }
.verdict { font-size: 1.1rem; border-left: 4px solid #0072b2; padding-left: 0.75rem; margin: 1rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25rem 0.75rem; text-align: left; white-space: nowrap; }
tr.first { border-top: 1px solid #d8d8d8; }
td.number { text-align: right; }
.better { color: #006d4e; font-weight: 600; }
.worse { color: #a33c00; font-weight: 600; }
.pictures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.5rem 0; }
.pictures img { display: block; max-width: 100%; height: auto; }
@media (max-width: 40rem) { th, td { padding: 0.2rem 0.35rem; font-size: 0.8rem; } h1 { font-size: 1.2rem; } }
.note { color: #555; font-size: 0.9rem; }
"""
# A line above each row that names what it and the rows below it are about.
FIRST = ' class="first"'


def page(title, sentences, columns, rows, pictures=(), notes=()):
    """The page as text.

    Args:
        title: Its title.
        sentences: What it says first.
        columns: The names of the columns of its table.
        rows: Rows of texts.
        pictures: Pairs of a description and a Matplotlib figure.
        notes: Paragraphs at the end.

    Example:
    >>> from kmix.diagnostics.page import page
    >>> "<td>a &lt; b</td>" in page("Scores", ["Good."], ["name"], [["a < b"]])
    True
    """
    shown = "".join(f'<p class="verdict">{html.escape(text)}</p>\n' for text in sentences)
    images = "".join(_image(description, figure) for description, figure in pictures)
    below = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in notes)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n"
        f"<h1>{html.escape(title)}</h1>\n{shown}{table(columns, rows)}"
        f'<div class="pictures">\n{images}</div>\n{below}</body>\n</html>\n'
    )


def table(columns, rows):
    """The table alone, in a box that scrolls where the screen is narrow.

    Example:
    >>> from kmix.diagnostics.page import table
    >>> '<td class="number">0.5</td>' in table(["value"], [["0.5"]])
    True
    """
    head = "".join(f"<th>{html.escape(column)}</th>" for column in columns)
    body = "".join(f"<tr{FIRST if row[0] else ''}>{''.join(map(_cell, row))}</tr>\n" for row in rows)
    return f'<div class="scroll">\n<table>\n<tr>{head}</tr>\n{body}</table>\n</div>\n'


def _cell(text):
    kind = text if text in ("better", "worse") else "number" if text[:1] in tuple("+-0123456789") else ""
    attribute = f' class="{kind}"' if kind else ""
    return f"<td{attribute}>{html.escape(text)}</td>"


def _image(description, figure):
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=160)
    width = round(96 * figure.get_figwidth())
    source = base64.b64encode(data.getvalue()).decode()
    return f'<img width="{width}" alt="{html.escape(description)}" src="data:image/png;base64,{source}">\n'
