"""Eager batches take short cuts: NumPy's views, threads, compiled kernels. What comes out is the same."""

import concurrent.futures
import functools
import importlib
import multiprocessing
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import data, ids, tf, to_native, to_numpy

import kmix
from kmix import _backend
from kmix._backend import execution
from kmix._backend.execution import Programs

BACKEND = keras.backend.backend()
N = 64
# Enough values for a kernel to be compiled, and, with `eagerly`, for threads.
SHAPE = (32, 32, 1)


def on(backend, reason):
    return pytest.mark.skipif(backend != BACKEND, reason=reason)


def mixup(**settings):
    return kmix.MixUp(**{"alpha": 1.0, "num_classes": 3, "seed": 5, **settings})


def cutmix(**settings):
    return kmix.CutMix(**{"alpha": 1.0, "num_classes": 3, "seed": 6, "data_format": "channels_last", **settings})


def choice(**settings):
    jit_compile = settings.get("jit_compile", True)
    return kmix.RandomChoice([mixup(**settings), cutmix(**settings)], seed=7, jit_compile=jit_compile)


every_layer = pytest.mark.parametrize("make", [mixup, cutmix, choice])


@pytest.fixture(autouse=True)
def eagerly(monkeypatch):
    """Threads and programs for small batches too, and no programs of other tests."""
    monkeypatch.setattr(execution, "_WORTH_THREADS", 1)
    monkeypatch.setattr(importlib.import_module("kmix.mixing.blend"), "_BLOCK", 2**12)
    monkeypatch.setattr(importlib.import_module("kmix.mixing.paste"), "_SMALL", 0)
    monkeypatch.setattr(execution, "PROGRAMS", Programs())
    yield
    kmix.mixing.set_num_threads(None)


def batch(dtype="float32"):
    x = data(N, SHAPE)
    return (x * 255).astype("uint8") if dtype == "uint8" else x.astype(dtype), ids(N)


def assert_close(ours, expected):
    for one, other in zip(*map(keras.tree.flatten, (to_numpy(ours), to_numpy(expected))), strict=True):
        # JAX has 32 bits.
        assert one.dtype == other.dtype or {one.dtype.name, other.dtype.name} == {"int32", "int64"}
        rounding = 1e-5 if one.itemsize > 2 else 1e-2
        np.testing.assert_allclose(one.astype("float64"), other.astype("float64"), rounding, rounding)


def tensors(framework):
    return functools.partial(keras.tree.map_structure, tf.constant) if framework == "tensorflow" else to_native


@pytest.mark.fast("mixup-float32-*", "cutmix-uint8-*", "choice-float16-native")
@pytest.mark.parametrize("framework", ["native", "tensorflow"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
@every_layer
def test_every_call_with_a_shape_gives_what_numpy_gives(make, dtype, framework):
    """JAX mixes the first at once, compiles for the second, and calls the program for the third."""
    layer, plain = make(), make(jit_compile=False)
    given = tensors(framework)(batch(dtype))
    for step in range(4):
        expected = make().at_step(step, batch(dtype))
        assert_close(layer.at_step(step, given), expected)
        assert_close(plain.at_step(step, given), expected)
    assert_close(given, batch(dtype))


@every_layer
def test_numbers_and_alpha_go_on_through_compiled_kernels(make):
    layer, reference = make(), make()
    given = to_native(batch())
    for i in range(6):
        if make is not choice and i == 3:
            layer.alpha = reference.alpha = 0.0
        assert_close(layer(*given), reference(*batch()))


def test_a_schedule_takes_effect_in_every_step():
    schedule = kmix.schedules.Linear(0.0, 1.0, 4)
    layer, given = mixup(alpha=schedule), to_native(batch())
    for step in range(6):
        assert_close(layer.at_step(step, given), mixup(alpha=schedule).at_step(step, batch()))


@pytest.fixture
def compiled(monkeypatch):
    """The kernels that get compiled, as a list that grows."""
    names, find = [], Programs.find

    def recorded(self, signature, make, min_calls=1):
        return find(self, signature, lambda: names.append(signature[0].__name__) or make(), min_calls)

    monkeypatch.setattr(Programs, "find", recorded)
    return names


@pytest.mark.parametrize("framework", ["tensorflow", *(["native"] if BACKEND == "jax" else [])])
def test_a_shape_is_compiled_once_and_by_jax_for_its_second_batch(framework, compiled):
    names, layers = compiled, [mixup(alpha=alpha, seed=alpha) for alpha in (1, 2)]
    first, other = (tensors(framework)((data(n, SHAPE), ids(n))) for n in (N, N + 1))
    layers[0].at_step(0, first)
    layers[0].at_step(0, other)
    at_once = ["blend", "blend"] if framework == "tensorflow" else []
    assert names == at_once
    for step in range(5):
        for layer in layers:
            layer.at_step(step, first)
    assert names == (at_once or ["blend"])
    cutmix().at_step(0, first)
    cutmix().at_step(1, first)
    assert names == [*(at_once or ["blend"]), "paste"]


@pytest.mark.parametrize("framework", ["native", "tensorflow"])
def test_neither_small_batches_nor_plain_layers_compile(framework, compiled):
    plain = mixup(jit_compile=False)
    for step in range(4):
        mixup().at_step(step, tensors(framework)((data(8, (4,)), ids(8))))
        plain.at_step(step, tensors(framework)(batch()))
    assert compiled == []


@on("jax", "PyTorch compiles nothing")
def test_a_choice_follows_its_own_jit_compile(compiled):
    layer = kmix.RandomChoice([mixup(), cutmix()], seed=7, jit_compile=False)
    for step in range(6):
        layer.at_step(step, to_native(batch()))
    assert compiled == []


def test_programs_for_arrays_are_bounded(monkeypatch):
    monkeypatch.setattr(execution, "PROGRAMS", Programs(limit=2))
    built = []
    find = lambda kernel, x: execution.program_for(kernel, [x], (), lambda made: built.append(made) or made, 2)
    arrays = [np.empty((2**16 + n,), "int8") for n in range(3)]
    kernel = functools.partial(print, sep="")
    found = [find(kernel, arrays[i]) for i in (0, 0, 1, 0, 2, 0, 1, 1)]
    # Of the three, 1 was forgotten for 2.
    assert found == [None, kernel, None, kernel, None, kernel, None, kernel]
    assert len(built) == 2
    assert find(functools.partial(print, sep="-"), arrays[0]) is None
    assert find(kernel, np.empty(2**16 - 1)) is None is find(kernel, np.empty(2**16 - 1))


def gradient(layer, x, y):
    """The gradient of a weighted sum of the mixed inputs."""
    weights = to_native(data(N, SHAPE, 3))
    loss = lambda x: keras.ops.sum(layer.at_step(1, (x, y))[0] * weights)
    if BACKEND == "jax":
        import jax

        return jax.grad(loss)(x)
    if BACKEND == "torch":
        x = x.clone().requires_grad_()
        loss(x).backward()
        return x.grad
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = loss(x)
    return tape.gradient(value, x)


@pytest.mark.fast("mixup")
@pytest.mark.parametrize("make", [mixup, cutmix])
def test_gradients_pass_through_eager_batches(make):
    layer, weights = make(), data(N, SHAPE, 3)
    plan = layer.plan(1, N, spatial_shape=SHAPE[:2])
    share = np.empty((N, *SHAPE))
    share[:] = plan.lam[:, None, None, None]
    if make is cutmix:
        share[:] = 1
        for i, (top, left, bottom, right) in enumerate(plan.box):
            share[i, top:bottom, left:right] = 0
    expected = weights * share
    np.add.at(expected, plan.permutation, weights * (1 - share))
    given = to_native(batch())
    for _ in range(3):
        layer.at_step(0, given)
        np.testing.assert_allclose(to_numpy(gradient(layer, *given)), expected, atol=1e-5)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow is the backend")
def test_eager_batches_need_no_tensorflow():
    """Whose import takes seconds and half a gigabyte."""
    code = (
        "import sys, keras, kmix, numpy as np; layer = kmix.MixUp(0.2, num_classes=3)\n"
        "x, y = np.ones((6, 4), 'float32'), np.array([0, 1, 2] * 2)\n"
        "layer(x, y), layer(keras.ops.convert_to_tensor(x), keras.ops.convert_to_tensor(y)), layer.at_step(0, [x, y])\n"
        "sys.exit('tensorflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# Threads.


@pytest.mark.fast("float32-shape2-mixup", "uint8-shape2-cutmix", "float16-shape1-mixup", "float16-shape0-cutmix")
@pytest.mark.parametrize("make", [mixup, cutmix])
@pytest.mark.parametrize("shape", [(3,), (300,), (400, 400)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "uint8"])
def test_threads_change_no_bit(make, shape, dtype):
    shape = (*shape, 2) if make is cutmix else shape
    x = (data(13, shape) * 255).astype(dtype)
    kmix.mixing.set_num_threads(1)
    expected = make().at_step(0, (x, ids(13)))
    for n in (2, 3, 40):
        kmix.mixing.set_num_threads(n)
        for ours, other in zip(make().at_step(0, (x, ids(13))), expected, strict=True):
            np.testing.assert_array_equal(ours, other)


def pools(monkeypatch):
    """The numbers of threads that are asked for, as a list that grows."""
    asked, pool = [], concurrent.futures.ThreadPoolExecutor
    monkeypatch.setattr(execution, "_POOLS", {})
    record = lambda n, **settings: asked.append(n) or pool(n, **settings)
    monkeypatch.setattr(concurrent.futures, "ThreadPoolExecutor", record)
    return asked


def test_threads_can_be_set_and_turned_off(monkeypatch):
    asked = pools(monkeypatch)
    mixup(jit_compile=False)(*batch())
    kmix.mixing.set_num_threads(1)
    mixup()(*batch())
    assert asked == []
    kmix.mixing.set_num_threads(3)
    mixup()(*batch())
    mixup()(*batch())
    assert asked == [3]
    monkeypatch.setattr(execution, "_WORTH_THREADS", 2**30)
    kmix.mixing.set_num_threads(2)
    mixup()(*batch())
    assert asked == [3]


def count_threads():
    return execution.num_threads()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork")  # Of JAX, if another test of the process has imported it.
@pytest.mark.parametrize(
    "method",
    [
        pytest.param("spawn", marks=pytest.mark.alike),
        *(["fork"] if BACKEND == "torch" and sys.platform == "linux" else []),
    ],
)
def test_a_worker_uses_one_thread(method):
    """JAX and TensorFlow warn of a fork."""
    kmix.mixing.set_num_threads(None)
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context(method)) as pool:
        assert pool.submit(count_threads).result() == 1


@pytest.mark.parametrize(("n", "error"), [(0, ValueError), (-1, ValueError), (1.5, TypeError), ("2", TypeError)])
def test_a_wrong_number_of_threads(n, error):
    with pytest.raises(error, match="n"):
        kmix.mixing.set_num_threads(n)


@pytest.mark.parametrize("order", ["channels_last", "transposed", "strided", "broadcast", "reversed"])
@pytest.mark.parametrize("make", [mixup, cutmix])
def test_every_order_in_memory(make, order):
    x = data(N, (6, 8, 3))
    laid_out = {
        "channels_last": np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 3, 1)), 1, 3),
        "transposed": np.ascontiguousarray(x.T).T,
        "strided": np.repeat(x, 2, axis=2)[:, :, ::2],
        "broadcast": np.broadcast_to(x[:, :1], x.shape),
        "reversed": np.ascontiguousarray(x[::-1, :, ::-1])[::-1, :, ::-1],
    }[order]
    expected = make().at_step(0, (np.ascontiguousarray(laid_out), ids(N)))
    for ours, other in zip(make().at_step(0, (laid_out, ids(N))), expected, strict=True):
        np.testing.assert_array_equal(ours, other)


# PyTorch.

torch_only = on("torch", "about tensors of PyTorch")


@torch_only
def test_pytorch_on_the_cpu_is_mixed_by_numpy(monkeypatch):
    import torch

    given, expected = to_native(batch()), mixup().at_step(0, batch())
    x, y = mixup().at_step(0, given)
    # The same program, and no tensor in common.
    np.testing.assert_array_equal(x, expected[0])
    np.testing.assert_array_equal(y, expected[1])
    assert type(x) is torch.Tensor
    x.zero_()
    assert_close(given, batch())
    assert_close(mixup().at_step(0, given), expected)


@torch_only
@pytest.mark.parametrize("dtype", ["float32", "uint8"])
def test_an_accelerator_of_pytorch_mixes_in_place_of_its_own(monkeypatch, dtype):
    """No tensor of another device is here, so that the views are taken away instead."""
    monkeypatch.setattr(_backend.keras_ops, "_view", lambda x: None)
    given = to_native(batch(dtype))
    for make in (mixup, cutmix):
        assert_close(make().at_step(0, given), make().at_step(0, batch(dtype)))
        assert_close(given, batch(dtype))


@torch_only
def test_memory_format_and_bfloat16_of_pytorch():
    import torch

    x, y = torch.rand(N, 3, 8, 6).to(memory_format=torch.channels_last), torch.arange(N) % 3
    mixed = mixup().at_step(0, (x, y))[0]
    assert mixed.is_contiguous(memory_format=torch.channels_last)
    assert_close(mixed, mixup().at_step(0, (x.numpy(), y.numpy()))[0])
    half = mixup(dtype="bfloat16").at_step(0, (x.bfloat16(), y))[0]
    assert half.dtype == torch.bfloat16
    np.testing.assert_allclose(half.float(), mixed, atol=0.02)


@torch_only
def test_tensors_of_pytorch_that_are_followed_take_plain_operations():
    import torch

    x, y = torch.rand(N, 5), torch.arange(N) % 3
    layer = mixup()
    expected = mixup().at_step(0, (x.numpy(), y.numpy()))[0]
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, torch.ones_like(x))
        blended = torch.autograd.forward_ad.unpack_dual(layer.at_step(0, (dual, y))[0])
        np.testing.assert_allclose(blended.primal, expected, atol=1e-6)
        np.testing.assert_allclose(blended.tangent, np.ones((N, 5)), atol=1e-6)
        pasted = cutmix().at_step(0, (dual[:, :, None], y))[0]
        np.testing.assert_array_equal(torch.autograd.forward_ad.unpack_dual(pasted).tangent[..., 0], np.ones((N, 5)))
    mapped = torch.func.vmap(lambda z: cutmix().at_step(0, (z, y))[0])(torch.stack([2 * x, x])[..., None])
    np.testing.assert_array_equal(mapped[1], cutmix().at_step(0, (x[..., None], y))[0])
    with torch.no_grad():
        parameter = torch.nn.Parameter(x)
        np.testing.assert_allclose(layer.at_step(0, (parameter, y))[0], expected, atol=1e-6)
        np.testing.assert_allclose(layer.at_step(0, (x.clone().requires_grad_(), y))[0], expected, atol=1e-6)
    negated = torch.complex(torch.zeros_like(x), -x).conj().imag
    assert negated.is_neg()
    np.testing.assert_allclose(layer.at_step(0, (negated, y))[0], expected, atol=1e-6)
    compiled = torch.compile(lambda z: layer.at_step(0, (z, y))[0], backend="eager")
    np.testing.assert_allclose(compiled(x), expected, atol=1e-6)


@on("jax", "about arrays of JAX")
def test_the_device_of_an_array_of_jax():
    import jax

    device = jax.devices()[-1]
    given = jax.device_put(batch(), device)
    for n in range(3):
        assert mixup().at_step(n, given)[0].devices() == {device}
    assert execution._FUSES.get()
