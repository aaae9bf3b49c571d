"""The directive `measured`: a table of a page, taken from a result file, so that no number is written by hand.

    :::{measured} examples/experiments/results/noisy_labels.json
    :rows: 50 %
    :columns: method, last epoch
    :::

A result file is the JSON of an experiment, the printed output of an example (`.txt`), or a Markdown file, of which
`:section:` names a part. `:rows:` keeps the rows with a cell of that text, such as `plain | 50 % & MixUp(8)`;
`:columns:` keeps columns, by their titles (separated by `|`). Below the table stands the command that wrote it,
unless `:no-command:` leaves it out.
"""

import importlib.util
import json
import pathlib
import re

from docutils import nodes
from docutils.parsers.rst import Directive, directives
from docutils.statemachine import StringList

ROOT = pathlib.Path(__file__).parent.parent.parent
TABLES = ROOT / "examples" / "experiments" / "tables.py"


def _split(text):
    return [part.strip() for part in text.split("|")]


def _cells(line):
    return [cell.strip() for cell in line.strip().strip("|").split("|")]


def _holds(row, name):
    """Whether a row has all cells that `name` joins by `&`."""
    return all(cell.strip() in row for cell in name.split("&"))


def section(text, name):
    """The part of a Markdown file between `<!-- name -->` and `<!-- /name -->`."""
    return text.split(f"<!-- {name} -->")[1].split(f"<!-- /{name} -->")[0]


def read(path, part=None):
    """The text of a result file in Markdown, and the command that wrote it."""
    text = path.read_text()
    if path.suffix == ".json":
        spec = importlib.util.spec_from_file_location("tables", TABLES)
        tables = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(tables)
        result = json.loads(text)
        return tables.markdown(result), result["command"]
    if part is not None:
        text = section(text, part)
    command = re.search(r"^(?:\$ |`)((?:[A-Z_]+=\S+ )*(?:python|make) [^`\n]*)", text, flags=re.MULTILINE)
    return text, command[1] if command else None


def table(text, rows=None, columns=None):
    """The lines of the first table of a Markdown text, with some of its rows and columns."""
    lines = text.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    last = next((number for number in range(first, len(lines)) if not lines[number].startswith("|")), len(lines))
    head, _, *body = map(_cells, lines[first:last])
    if rows is not None:
        kept = [row for row in body if any(_holds(row, name) for name in rows)]
        missing = [name for name in rows if not any(_holds(row, name) for row in body)]
        if missing:
            raise ValueError(f"no row with {missing}")
        body = kept
    if columns is not None:
        places = [head.index(name) for name in columns]
        head, body = [head[i] for i in places], [[row[i] for i in places] for row in body]
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *body)]


class Measured(Directive):
    """A table of a result file, or what it printed."""

    required_arguments = 1
    option_spec = {"rows": _split, "columns": _split, "section": str, "no-command": directives.flag}

    def run(self):
        path = ROOT / self.arguments[0]
        self.state.document.settings.env.note_dependency(str(path))
        try:
            text, command = read(path, self.options.get("section"))
            if path.suffix == ".txt":
                # Without the command, and without the bar of the progress.
                lines = [line for line in text.splitlines() if not re.search(r"^\$ |━ +\d+%", line)]
                content = ["```text", *lines, "```"]
            else:
                content = table(text, self.options.get("rows"), self.options.get("columns"))
        except (OSError, ValueError, IndexError, StopIteration) as error:
            raise self.error(f"measured {self.arguments[0]}: {error!r}") from None
        if command and "no-command" not in self.options:
            content += ["", f"{{.measured}}\nWritten by `{command}`."]
        node = nodes.container(classes=["measured"])
        self.state.nested_parse(StringList("\n".join(content).splitlines(), str(path)), self.content_offset, node)
        return [node]


def setup(app):
    app.add_directive("measured", Measured)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
