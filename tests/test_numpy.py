"""NumPy arrays (Grain, plain loaders): the result of the oracle, with no copy of the batch besides it."""

import importlib
import os
import sys
import tracemalloc

import keras
import ml_dtypes
import numpy as np
import pytest
from helpers import tf
from oracle import cutmix, mixup

import kmix
from kmix import _backend, mixing, plan
from kmix._backend import NUMPY
from kmix.targets import BatchInfo, LabelPairs, Labels
from kmix.targets.sample_weights import mix_weight

SHAPES = [(9, 40, 40, 3), (300, 32, 32, 3), (3, 200, 200, 3), (9, 0, 4, 3), (0, 8, 8, 3), (1, 8, 8, 1)]


def images(shape, dtype="float32"):
    return (255 * np.random.default_rng(0).random(shape)).astype(dtype)


def plans(size, spatial=(32, 32)):
    return plan.sample_mixup(1, 0, 0.4, size), plan.sample_cutmix(1, 0, 1.0, size, spatial)


def mix_labels(y, drawn):
    return Labels().mix(NUMPY, y, None, drawn, BatchInfo())[0]


def beyond_the_result(function):
    """Peak memory of `function` in bytes, without its result."""
    tracemalloc.start()
    try:
        result = function()
        return tracemalloc.get_traced_memory()[1] - result.nbytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_memory(dtype):
    x = images((64, 64, 64, 3), dtype)
    for drawn in plans(64, (64, 64)):
        assert beyond_the_result(lambda drawn=drawn: mixing.mix_inputs(x, drawn)) < x.nbytes
    labels = np.eye(2000, dtype="float32")[np.arange(256)]
    drawn, _ = plans(256)
    assert beyond_the_result(lambda: mix_labels(labels, drawn)) < labels.nbytes


def test_the_memory_test_can_fail(monkeypatch):
    """With one block for all samples, as in plain NumPy expressions, memory holds the batch several times."""
    x = images((64, 64, 64, 3))
    drawn, _ = plans(64)
    monkeypatch.setattr(importlib.import_module("kmix.mixing.blend"), "_BLOCK", x.size)
    assert beyond_the_result(lambda: mixing.mix_inputs(x, drawn)) > 2 * x.nbytes


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "uint8"])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_are_the_formula(shape, dtype):
    x = images(shape, dtype)
    before = x.copy()
    blend, paste = plans(len(x), tuple(max(size, 1) for size in shape[1:3]))
    mixed = mixing.mix_inputs(x, blend)
    assert mixed.dtype == ("float32" if dtype == "uint8" else dtype)
    # Rounded once, from float32.
    step = {"float64": 1e-6, "float16": 2.0**-11, "bfloat16": 2.0**-8}.get(dtype, 1e-6)
    np.testing.assert_allclose(mixed.astype("float64"), mixup(x, blend.lam, blend.permutation), rtol=step, atol=1e-4)
    mixed = mixing.mix_inputs(x, paste)
    assert mixed.dtype == x.dtype
    np.testing.assert_array_equal(mixed, cutmix(x, paste.box, paste.permutation))
    np.testing.assert_array_equal(x, before)


def test_rounded_once():
    """Half precision would lose a weight of 0.0004 next to 1, and the sum of rounded products would be off."""
    x = np.random.default_rng(0).normal(size=(500, 40)).astype("float16")
    drawn, _ = plans(500)
    wide = x.astype("float32")
    partner = wide[drawn.permutation]
    expected = (partner + drawn.lam[:, None] * (wide - partner)).astype("float16")
    np.testing.assert_array_equal(mixing.mix_inputs(x, drawn), expected)
    into_half = mixing.mix_inputs(images((500, 40), "uint8"), drawn, dtype="bfloat16")
    assert into_half.dtype == ml_dtypes.bfloat16


def test_any_layout_in_memory():
    x = images((40, 30, 60, 6))
    blend, paste = plans(20, (15, 60))
    for given in (
        x[::2, ::-2, :, 1:4],
        np.asfortranarray(x[:20, :15, :, :3]),
        x[:20, :15, :, :3].transpose(0, 2, 1, 3),
    ):
        before = given.copy()
        np.testing.assert_allclose(
            mixing.mix_inputs(given, blend), mixup(given, blend.lam, blend.permutation), rtol=1e-6, atol=1e-4
        )
        np.testing.assert_array_equal(mixing.mix_inputs(given, paste), cutmix(given, paste.box, paste.permutation))
        np.testing.assert_array_equal(given, before)
    read_only = x[:20].copy()
    read_only.flags.writeable = False
    assert mixing.mix_inputs(read_only, blend).flags.writeable
    channels_first = mixing.mix_inputs(x[:20].transpose(0, 3, 1, 2), paste, data_format="channels_first")
    np.testing.assert_array_equal(channels_first.transpose(0, 2, 3, 1), mixing.mix_inputs(x[:20], paste))


@pytest.mark.parametrize("size", [1, 7, 70_000])
def test_one_number_for_each_sample(size):
    x = images(size)
    drawn, _ = plans(size)
    expected = mixup(x, drawn.lam, drawn.permutation)
    scale = np.abs(x).max()
    np.testing.assert_allclose(mixing.mix_inputs(x, drawn), expected, rtol=1e-5, atol=1e-6 * scale)
    np.testing.assert_allclose(mix_labels(x, drawn), expected, rtol=1e-5)
    np.testing.assert_allclose(mix_weight(NUMPY, x, drawn), expected, rtol=1e-5)


def test_kept_samples_are_kept_beside_mixed_ones():
    """0 * nan is nan: a kept sample stays unchanged, even in one block with others."""
    x = images((4, 5))
    x[1] = np.nan, np.inf, -np.inf, 3e38, 7
    drawn = plan.MixPlan(np.array([1, 0.25, 0.5, 1], "float32"), np.array([1, 0, 3, 1]))
    mixed = mixing.mix_inputs(x, drawn)
    np.testing.assert_array_equal(mixed[[0, 3]], x[[0, 3]])
    np.testing.assert_allclose(mixed[2], (x[2] + x[3]) / 2, rtol=1e-6)
    assert np.isnan(mixed[1, 0])
    assert mixed[1, 1] == np.inf


def test_partners_within_shards():
    x = images((12, 5, 5, 2))
    blend, paste = plans(4, (5, 5))
    whole = np.concatenate([blend.permutation, blend.permutation + 4, blend.permutation + 8])
    lam, box = np.tile(blend.lam, 3), np.tile(paste.box, (3, 1))
    blend = plan.MixPlan(lam, whole.reshape(3, 4) % 4)
    np.testing.assert_allclose(mixing.mix_inputs(x, blend), mixup(x, lam, whole), rtol=1e-5)
    np.testing.assert_array_equal(mixing.mix_inputs(x, blend._replace(box=box)), cutmix(x, box, whole))
    ids = np.arange(12)
    pairs, _ = LabelPairs(12).mix(NUMPY, ids, None, blend, BatchInfo())
    np.testing.assert_array_equal(pairs[:, 1], whole)


@pytest.mark.parametrize("dtype", ["float32", "uint8", "U3", "complex64"])
@pytest.mark.parametrize("shape", [(3000, 8, 8, 3), (7, 5, 1), (40, 3, 4, 5, 2), (1, 9, 2, 1), (0, 4, 4, 1)])
def test_small_samples_are_pasted_by_masks_as_by_slices(shape, dtype, monkeypatch):
    x, spatial = images(shape, "int64").astype(dtype), shape[1:-1]
    drawn = plan.sample_cutmix(1, 0, 1.0, len(x), spatial)
    # A box may lie beyond the borders.
    drawn = drawn._replace(box=drawn.box + np.where(np.arange(len(x)) % 3, 0, -2)[:, None])
    calls, module = [], importlib.import_module("kmix.mixing.paste")
    small = module._small_windows
    monkeypatch.setattr(module, "_small_windows", lambda *arrays: calls.append(1) or small(*arrays))
    last = mixing.mix_inputs(x, drawn)
    turned = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    first = mixing.mix_inputs(turned, drawn, data_format="channels_first")
    assert len(calls) == (2 if len(x) else 0)
    np.testing.assert_array_equal(np.moveaxis(first, 1, -1), last)
    monkeypatch.setattr(module, "_SMALL", 0)
    np.testing.assert_array_equal(mixing.mix_inputs(x, drawn), last)
    assert len(calls) == (2 if len(x) else 0)


@pytest.mark.parametrize("make", [np.asarray, lambda x: tf.constant(x), keras.ops.convert_to_tensor])
def test_double_precision_is_rounded_once_into_half(make):
    """By way of float32, a number just above the middle of two halves would become the lower one."""
    x = np.array([[1 + 2.0**-11 + 2.0**-30], [1 - 2.0**-12 - 2.0**-30]])
    expected = x.astype("float16")
    assert (expected != x.astype("float32").astype("float16")).all()
    given, y = make(x), make(np.array([0.0, 1.0], "float32"))
    if _backend.kind(given).framework in ("tensorflow", "jax"):
        # As these themselves cast: TensorFlow by way of float32.
        expected = _backend.values(_backend.namespace(given).cast(given, "float16"))
    mixed, _ = kmix.MixUp(0.0, dtype="float16").at_step(0, (given, y))
    np.testing.assert_array_equal(_backend.values(mixed), expected)
    if make is np.asarray:
        half = plan.MixPlan(np.full(2, 0.5, "float32"), np.array([1, 0]))
        mean = np.broadcast_to(x.mean(0), x.shape).astype("float16")
        np.testing.assert_array_equal(mixing.mix_inputs(x, half, dtype="float16"), mean)


def test_few_calls_for_a_small_batch():
    x, y, (drawn, _) = images((8, 8, 8, 3)), np.eye(8, dtype="float32"), plans(8)
    blend, combine = (importlib.import_module("kmix.mixing.blend").__dict__[name] for name in ("blend", "combine"))
    settings = {"dtype": "float32", "bijective": True}
    arguments = (NUMPY, drawn.lam == 1, drawn.lam, 1 - drawn.lam, y, drawn.permutation)
    assert count_calls(lambda: blend(NUMPY, x, drawn.permutation, drawn.lam, **settings)) <= 8
    assert count_calls(lambda: combine(*arguments)) <= 8
    # With the test itself.
    assert count_calls(lambda: plan.sample_mixup(1, 0, 0.2, 8)) <= 36


def count_calls(function):
    """The number of calls of functions of kmix."""
    found, folder = [], os.path.dirname(kmix.__file__)
    function()
    sys.setprofile(lambda frame, event, _: event == "call" and found.append(frame.f_code.co_filename))
    try:
        function()
    finally:
        sys.setprofile(None)
    return sum(name.startswith(folder) for name in found)


def test_every_dtype_can_be_pasted():
    _, paste = plans(6, (4, 4))
    for dtype in ("bool", "int64", "U3", "complex64"):
        x = images((6, 4, 4, 1), "int64").astype(dtype)
        np.testing.assert_array_equal(mixing.mix_inputs(x, paste), cutmix(x, paste.box, paste.permutation))
