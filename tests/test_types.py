"""The types of the public names: complete, and right for a type checker that reads a user's file."""

import inspect
import pathlib
import runpy

import pytest
from helpers import raises
from test_project import symbols

import kmix

ROOT = pathlib.Path(__file__).parent.parent
RIGHT, WRONG = (ROOT / "tests" / "typed" / name for name in ("right.py", "wrong.py"))
# Private names that users call.
CALLED = {"__init__", "__call__", "__getitem__", "__len__", "__iter__"}


def functions(symbol, package="kmix"):
    """The functions behind a function or a class, with what the class inherits within the package."""
    if inspect.isfunction(symbol):
        yield symbol
    for owner in getattr(symbol, "__mro__", ()):
        if owner.__module__.split(".")[0] == package:
            for name, member in vars(owner).items():
                if not name.startswith("_") or name in CALLED:
                    parts = [getattr(member, part, None) for part in ("__func__", "fget", "fset")]
                    yield from filter(inspect.isfunction, (member, *parts))


def unannotated(function):
    """The parameters of a function without a type, and `->` if its result has none."""
    # Not of Keras' function that `MixTrainer.fit` wraps.
    signature = inspect.signature(function, follow_wrapped=False)
    for index, parameter in enumerate(signature.parameters.values()):
        if parameter.annotation is parameter.empty and (index or parameter.name not in ("self", "cls")):
            yield parameter.name
    if signature.return_annotation is signature.empty:
        yield "->"


def incomplete(symbol, package="kmix"):
    """What lacks a type, by function."""
    found: dict[str, list[str]] = {}
    for function in functions(symbol, package):
        # A property has several.
        found.setdefault(function.__qualname__, []).extend(unannotated(function))
    return {name: missing for name, missing in found.items() if missing}


@pytest.mark.parametrize("symbol", list(symbols()))
def test_public_symbols_are_annotated(symbol):
    assert incomplete(symbol) == {}


class Base:
    def inherited(self, x): ...


class Partly(Base):
    def __init__(self, right: int, wrong) -> None: ...

    @property
    def width(self):
        return 1

    @width.setter
    def width(self, value: int) -> None: ...

    @classmethod
    def read(cls, *args, **settings: int) -> None: ...

    def whole(self, x: int) -> int: ...

    def _private(self, x): ...


def test_what_lacks_a_type_is_noticed():
    found = {name.rpartition(".")[2]: missing for name, missing in incomplete(Partly, __name__).items()}
    assert found == {"__init__": ["wrong"], "width": ["->"], "read": ["args"], "inherited": ["x", "->"]}
    assert list(unannotated(lambda self, x: x)) == ["x", "->"]


def marked():
    """The numbers of the lines of the wrong file that are errors, with their code."""
    lines = enumerate(WRONG.read_text().splitlines(), 1)
    return {number: line for number, line in lines if "# error: " in line}


@pytest.mark.alike
@pytest.mark.slow
def test_a_type_checker_finds_each_wrong_call_and_no_other(monkeypatch, request):
    from mypy import api

    monkeypatch.chdir(ROOT)
    cache = request.config.cache.mkdir("mypy")
    # Without settings of ours. Keras ships no types.
    options = ["--config-file=", "--strict", "--ignore-missing-imports", "--follow-imports=silent"]
    report, failure, _ = api.run([*options, f"--cache-dir={cache}", str(RIGHT), str(WRONG)])
    assert not failure
    errors = [line for line in report.splitlines() if ": error: " in line]
    of_right = [line for line in errors if line.startswith(str(RIGHT.relative_to(ROOT)))]
    of_wrong = {int(line.split(":")[1]) for line in errors if line.startswith(str(WRONG.relative_to(ROOT)))}
    assert of_right == []
    assert len(of_right) + len(of_wrong) == len(errors), report
    assert sorted(of_wrong) == list(marked()), report


@pytest.mark.alike
@pytest.mark.slow
def test_the_right_file_runs():
    assert runpy.run_path(str(RIGHT))["warnings"] is not None


def test_the_wrong_calls_are_refused():
    names = {"np": __import__("numpy"), "kmix": kmix, "mixup": kmix.MixUp(0.2, num_classes=10)}
    assert len(marked()) == 10
    for number, line in marked().items():
        raises(lambda line=line: exec(line, dict(names)), name=f"line {number}", errors=(TypeError, ValueError))
