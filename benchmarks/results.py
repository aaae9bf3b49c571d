"""`RESULTS.md`: one section for each benchmark, which rewrites its own section and leaves the others alone."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import re
import sys

RESULTS = pathlib.Path(__file__).with_name("RESULTS.md")
HEAD = """# Measured

Each section is written by the command that it names. Ratios travel between machines, milliseconds do not.
"""


def write_section(name, text, path=RESULTS):
    """Write `text` between the markers of section `name` of the file, in its old place or at the end."""
    page = path.read_text() if path.exists() else HEAD
    section = f"<!-- {name} -->\n{text.strip()}\n<!-- /{name} -->"
    page, found = re.subn(rf"<!-- {name} -->.*?<!-- /{name} -->", lambda _: section, page, flags=re.DOTALL)
    path.write_text(page if found else f"{page.rstrip()}\n\n{section}\n")


def table(header, rows):
    """A Markdown table of cells of text."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def command(backend):
    """The running command, as a user types it in the root of the project."""
    script = f"benchmarks/{pathlib.Path(sys.argv[0]).name}"
    return f"`KERAS_BACKEND={backend} python {' '.join([script, *sys.argv[1:]])}`"


def machine(*packages):
    """The date, the processor, its cores, and the versions of the packages."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor() or platform.machine()
    versions = []
    for package in packages:
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} not installed")
    return f"{datetime.date.today()}, {processor}, {os.cpu_count()} cores, {', '.join(versions)}"
