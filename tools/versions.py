"""Run tests with other versions, each in an environment of its own and most with one framework: `make versions`.

    python tools/versions.py                         # all, some minutes each
    python tools/versions.py --only oldest nightly   # those whose name holds one of these

Writes the table `tests/versions.md`, in which other rows stay as they were. A Python that is not there is a row that
says so.
"""

import argparse
import datetime
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parent.parent
TABLE = ROOT / "tests" / "versions.md"
HEAD = ["what", "backend", "Python", "Keras", "NumPy", "TensorFlow", "JAX", "PyTorch", "tests", "result", "date"]
SHOWN = "keras", "numpy", "tensorflow", "jax", "torch"
TOOLS = ["grain", "hypothesis", "pytest", "pytest-xdist", "pyyaml", "scipy", "scikit-learn", "matplotlib", "pandas"]
TOOLS += ["tensorboard"]
# The oldest that kmix declares, and of the rest what goes with them.
OLDEST = ["keras==3.12.0", "numpy==1.25.2", "scipy<1.14"]
FILES = ["arguments", "batch_forms", "calls", "code_paths", "fuzz", "golden", "numbering", "numpy", "pairing", "random"]
FILES += ["schedules_callbacks", "soak", "targets", "trainer", "trainer_files"]


class Run(NamedTuple):
    """An environment, and the backend of its tests."""

    name: str
    python: str
    backend: str
    packages: list[str]


RUNS = [
    Run("newest", "3.11", "tensorflow", ["tensorflow"]),
    Run("newest", "3.11", "jax", ["jax"]),
    Run("newest", "3.11", "torch", ["torch==2.13.0"]),
    Run("newest, Python 3.12", "3.12", "tensorflow", ["tensorflow"]),
    Run("newest, Python 3.12", "3.12", "jax", ["jax"]),
    Run("newest, Python 3.13", "3.13", "tensorflow", ["tensorflow"]),
    Run("newest, Python 3.13", "3.13", "jax", ["jax"]),
    Run("oldest", "3.11", "tensorflow", [*OLDEST, "tensorflow==2.16.1"]),
    Run("oldest", "3.11", "jax", [*OLDEST, "jax==0.4.35", "jaxlib==0.4.35"]),
    Run("nightly Keras", "3.11", "tensorflow", ["tensorflow", "keras-nightly"]),
    Run("nightly Keras", "3.11", "jax", ["jax", "keras-nightly"]),
    Run("nightly Keras", "3.11", "torch", ["torch==2.13.0", "keras-nightly"]),
]


def python_of(version):
    """The path of a Python of that version, or None."""
    for candidate in (f"python{version}", *pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python")):
        path = shutil.which(candidate)
        if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
            return path
    return None


def install(python, run):
    """The Python of a new environment with the packages, or what went wrong."""
    environment = pathlib.Path(tempfile.mkdtemp(dir=ROOT / ".venv", prefix="versions-"))
    inside = environment / "bin" / "python"
    nightly = "keras-nightly" in run.packages
    wanted = [package for package in run.packages if package != "keras-nightly"]
    commands = [
        [python, "-m", "venv", environment],
        [inside, "-m", "pip", "install", "-q", "--upgrade", "pip"],
        [inside, "-m", "pip", "install", "-q", *wanted, *TOOLS, "-e", ROOT],
    ]
    if nightly:
        commands.append([inside, "-m", "pip", "uninstall", "-q", "-y", "keras"])
        commands.append([inside, "-m", "pip", "install", "-q", "--pre", "keras-nightly"])
    for command in commands:
        done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
        if done.returncode:
            shutil.rmtree(environment)
            return None, done.stderr.strip().splitlines()[-1][:100]
    return inside, None


def versions(python):
    """The installed versions of what the table shows."""
    code = "import importlib.metadata as m, json, platform; names = {d.metadata['Name'].lower(): d.version for d in "
    code += "m.distributions()}; print(json.dumps([platform.python_version(), names]))"
    number, names = json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)
    names.setdefault("keras", names.get("keras-nightly", ""))
    return [number, *(names.get(name, "") for name in SHOWN)]


def test(python, backend, files):
    """Run the fast tests of the files: `(number that passed, result)`."""
    command = [python, "-m", "pytest", "-q", "-n", "2", "-m", "not slow", "-p", "no:cacheprovider"]
    done = subprocess.run(
        list(map(str, [*command, *(f"tests/test_{name}.py" for name in files)])),
        cwd=ROOT,
        capture_output=True,
        text=True,
        env={
            "KERAS_BACKEND": backend,
            "PATH": "/usr/bin:/bin",
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "HOME": str(pathlib.Path.home()),
        },
    )
    lines = done.stdout.strip().splitlines()
    print(
        *[line for line in lines if line.startswith(("FAILED", "ERROR"))], lines[-1] if lines else done.stderr, sep="\n"
    )
    passed = re.search(r"(\d+) passed", done.stdout)
    failed = re.search(r"\d+ (?:failed|error).*?(?=,| in)", done.stdout)
    return (passed[1] if passed else "0"), (
        "passed" if done.returncode == 0 else failed[0] if failed else "did not run"
    )


def row(run, files):
    """The row of the table for a run."""
    today = str(datetime.datetime.now(datetime.UTC).date())
    python = python_of(run.python)
    if python is None:
        return [run.name, run.backend, run.python, *[""] * 6, "no such Python here", today]
    inside, fault = install(python, run)
    if inside is None:
        return [run.name, run.backend, run.python, *[""] * 6, f"could not be installed: {fault}", today]
    try:
        return [run.name, run.backend, *versions(inside), *test(inside, run.backend, files), today]
    finally:
        shutil.rmtree(inside.parent.parent)


def rows_of_table():
    """The rows that are in the table, by their name and backend."""
    lines = TABLE.read_text().splitlines()[4:] if TABLE.exists() else []
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return {tuple(row[:2]): row for row in rows}


def main():
    """Run what is asked for, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[""], help="parts of the names")
    parser.add_argument("--files", nargs="+", default=FILES, help="names of test files, without test_")
    options = parser.parse_args()
    asked = [run for run in RUNS if any(part in f"{run.name}, {run.backend}" for part in options.only)]
    rows, results = rows_of_table(), []
    for run in asked:
        print(f"{run.name}, {run.backend}", flush=True)
        rows[run.name, run.backend] = row(run, options.files)
        results.append(rows[run.name, run.backend][-2])
        lines = [HEAD, ["---"] * len(HEAD), *(rows[key] for key in (run[:3:2] for run in RUNS) if key in rows)]
        text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        TABLE.write_text(f"Written by `make versions`: the fast tests of {', '.join(options.files)}.\n\n{text}\n")
    sys.exit(any(result != "passed" for result in results))


if __name__ == "__main__":
    main()
