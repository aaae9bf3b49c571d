"""Settings of the tests and doctests: one Keras backend per process, fixed seeds, XLA only where it is the subject."""

import collections
import fnmatch
import functools
import gc
import os
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("MPLBACKEND", "Agg")
if os.environ.get("KERAS_BACKEND") == "jax":
    # Programs are compiled once and run once: compile quickly.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true")
if os.environ.get("KMIX_TEST_WITHOUT_TENSORFLOW"):
    # As if it was not installed. Once loaded, it may hang in processes that are forked.
    sys.modules["tensorflow"] = None

import keras
import numpy as np
import pytest

import kmix
from kmix import _backend

BACKENDS = "tensorflow", "jax", "torch"
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
# Files for a type checker: to look for doctests, pytest would import them.
collect_ignore_glob = ["tests/typed/*"]


def pytest_addoption(parser):
    parser.addoption("--everywhere", action="store_true", help="run also what is alike, or has its turn elsewhere")


def pytest_configure(config):
    if config.getoption("everywhere"):
        os.environ["KMIX_TEST_EVERYWHERE"] = "1"  # read by `contract.py`


def pytest_collection_modifyitems(config, items):
    """Mark the cases of a parametrized test that its mark `fast` does not name as `slow`; skip what runs elsewhere."""
    unknown, turns = {}, collections.Counter()
    named = any("::" in argument for argument in config.args)
    here = named or config.getoption("everywhere")
    for item in items:
        mark = item.get_closest_marker("fast")
        if mark is not None:
            found = {pattern for pattern in mark.args if fnmatch.fnmatchcase(item.callspec.id, pattern)}
            unknown.setdefault((item.path.name, item.originalname), set(mark.args)).difference_update(found)
            if not found:
                item.add_marker("slow")
        if not here and _is_alike(item):
            if not ON_TENSORFLOW:
                item.add_marker(pytest.mark.skip(reason="alike on every backend"))
        elif not here and _has_a_turn(item):
            test = item.path, item.originalname if hasattr(item, "callspec") else ""
            if BACKENDS[turns[test] % len(BACKENDS)] != keras.backend.backend():
                item.add_marker(pytest.mark.skip(reason="the case of another backend"))
            turns[test] += 1
    unknown = {test: patterns for test, patterns in unknown.items() if patterns}
    if unknown and ON_TENSORFLOW and not named:
        raise pytest.UsageError(f"The mark `fast` names cases that there are not: {unknown}")


def _has_a_turn(item):
    # A test that says itself where it runs is left alone.
    marks = [item.get_closest_marker(name) is not None for name in ("in_turn", "slow", "skipif")]
    return marks == [True, True, False]


def _is_alike(item):
    if item.get_closest_marker("alike"):
        return True
    parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return any(isinstance(value, str) and value in ("numpy", "tfdata") for value in parameters)


@pytest.fixture(autouse=True)
def _seeds():
    keras.utils.set_random_seed(0)


@pytest.fixture(autouse=True)
def _plain_operations(request, monkeypatch):
    """Plain operations in tf.data and in the steps of Keras on TensorFlow, unless a test is marked `xla`.

    A program of XLA takes some 0.3 seconds to compile. Those of tf.data are alike on every backend, so that they run on
    TensorFlow alone, unless the mark or the option says "everywhere". A test that asks for `jit_compile=True` gets it.
    """
    mark = request.node.get_closest_marker("xla")
    everywhere = request.config.getoption("everywhere")
    if mark is not None and (ON_TENSORFLOW or everywhere or "everywhere" in mark.args):
        return
    twin = _backend.TENSORFLOW
    monkeypatch.setattr(twin, "fused", functools.partial(_backend.Namespace.fused, twin))
    if ON_TENSORFLOW:
        # In the class that defines it: Keras looks whether a model has a `compile` of its own.
        owner = next(cls for cls in keras.Model.__mro__ if "compile" in vars(cls))
        compile = owner.compile

        def plain(model, *args, **settings):
            jit = settings.pop("jit_compile", "auto")
            return compile(model, *args, jit_compile=False if jit == "auto" else jit, **settings)

        monkeypatch.setattr(owner, "compile", plain)


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item):
    """Collect what tests leave behind while it is young, and never look at the rest again.

    An iterator of tf.data in a cycle of references keeps a thread that tunes it less and less often, and that its end
    waits for: a pause of up to the iterator's age. And what is loaded once takes half a second to look through.
    """
    item.session.tests_run = getattr(item.session, "tests_run", 0) + 1
    if item.session.tests_run % 20 == 0:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace):
    doctest_namespace.update(np=np, keras=keras, kmix=kmix)


@pytest.fixture(autouse=True)
def _no_open_figures():
    yield
    if "matplotlib.pyplot" in sys.modules:
        sys.modules["matplotlib.pyplot"].close("all")
