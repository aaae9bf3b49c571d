"""The size of what a reader and a user have to hold in mind: calls of a batch, arguments, public names."""

import collections
import inspect
import pathlib
import sys

import keras
import numpy as np
import pytest

import kmix

PACKAGE = pathlib.Path(kmix.__file__).parent
MIXERS = (
    kmix.MixUp,
    kmix.CutMix,
    kmix.EmbeddingMixup,
    kmix.Mosaic,
    kmix.AudioMix,
    kmix.CopyPaste,
    kmix.RandomChoice,
)


def calls_of(function):
    """The files of the calls within kmix while `function` runs, and how deep they are nested."""
    files, depth, deepest, own = [], 0, 0, []

    def note(frame, event, _):
        nonlocal depth, deepest
        if event == "call":
            path = pathlib.Path(frame.f_code.co_filename)
            own.append(PACKAGE in path.parents)
            if own[-1]:
                files.append(path.relative_to(PACKAGE))
                depth += 1
                deepest = max(deepest, depth)
        elif event == "return" and own:
            depth -= own.pop()

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(before)
    return files, deepest


def test_a_small_batch_takes_few_calls():
    layer = kmix.MixUp(0.2, num_classes=10, seed=1)
    x, y = np.ones((8, 8, 8, 3), "float32"), np.arange(8)
    layer(x, y)
    calls, depth = calls_of(lambda: layer(x, y))
    files = set(calls)
    backend = {file for file in files if file.parts[0] == "_backend"}
    assert 20 < len(calls) <= 150, collections.Counter(map(str, calls))
    assert depth <= 14
    assert len(files) <= 18, sorted(files)
    assert 1 <= len(backend) <= 4, sorted(backend)


def test_arguments_of_mixup_are_few_and_written_out():
    parameters = list(inspect.signature(kmix.MixUp.__init__).parameters.values())[1:]
    assert len(parameters) <= 14
    assert {"seed", "name", "dtype"} <= {parameter.name for parameter in parameters}
    assert all(parameter.kind is not parameter.VAR_KEYWORD for parameter in parameters)


@pytest.mark.parametrize("mixer", MIXERS)
def test_public_names_of_a_layer_are_few(mixer):
    class Bare(keras.layers.Layer):
        def call(self, x):
            return x

    layer = mixer([kmix.MixUp()]) if mixer is kmix.RandomChoice else mixer()
    names = {name for name in dir(layer) if not name.startswith("_")}
    arguments = {name for each in (mixer, kmix.layers.MixLayer) for name in inspect.signature(each.__init__).parameters}
    own = names - set(dir(Bare())) - arguments
    assert {"at_step", "plan"} <= own
    assert len(own) <= 8, sorted(own)
