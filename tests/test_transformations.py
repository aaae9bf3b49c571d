"""Mixing within the transformations of JAX and PyTorch: derivatives, maps over batches, loops, compilers."""

import keras
import numpy as np
import pytest
from helpers import data, ids, to_native, to_numpy

import kmix

BACKEND = keras.backend.backend()
N, SHAPE = 6, (4, 5, 3)

jax_only = pytest.mark.skipif(BACKEND != "jax", reason="about transformations of JAX")
torch_only = pytest.mark.skipif(BACKEND != "torch", reason="about transformations of PyTorch")

LAYERS = {
    "blend": lambda: kmix.EmbeddingMixup(1.0, num_classes=3, seed=5),
    "blend with similar labels": lambda: kmix.MixUp(1.0, seed=5, pairing="similar_labels"),
    "paste": lambda: kmix.CutMix(1.0, num_classes=3, seed=5, data_format="channels_last"),
}
every_layer = pytest.mark.parametrize("name", LAYERS)


class Case:
    """A layer with a batch, its mixed inputs, and the gradient of a weighted sum of them, from the formulas."""

    def __init__(self, name):
        self.layer, similar = LAYERS[name](), "similar" in name
        x, weights = data(N, SHAPE), data(N, SHAPE, 3)
        y = data(N, ()) if similar else ids(N)
        plan = self.layer.plan(
            1, N, spatial_shape=SHAPE[:2] if name == "paste" else None, targets=y if similar else None
        )
        share = np.broadcast_to(plan.lam[:, None, None, None], x.shape).copy()
        if plan.box is not None:
            share[:] = 1
            for i, (top, left, bottom, right) in enumerate(plan.box):
                share[i, top:bottom, left:right] = 0
        self.mixed = share * x + (1 - share) * x[plan.permutation]
        self.gradient = weights * share
        np.add.at(self.gradient, plan.permutation, weights * (1 - share))
        self.x, self.y, self.weights = to_native((x, y, weights))

    def mix(self, x, step=1, y=None):
        return self.layer.at_step(step, (x, self.y if y is None else y))[0]

    def loss(self, x, step=1):
        return (self.mix(x, step) * self.weights).sum()


def assert_close(ours, expected):
    np.testing.assert_allclose(to_numpy(ours), expected, atol=1e-5)


@pytest.fixture
def quick_xla():
    """XLA compiles slow programs fast."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@jax_only
@every_layer
def test_gradients_of_jax(name, quick_xla):
    import jax

    case = Case(name)

    @jax.jit
    def gradients(x):
        if name != "blend":
            return [jax.grad(jax.jit(case.loss))(x), jax.grad(jax.checkpoint(case.loss))(x)]
        in_loop = lambda x: jax.lax.scan(lambda sum, step: (sum + case.loss(x, step), None), 0.0, np.ones(1, "int32"))[
            0
        ]
        in_branch = lambda x: jax.lax.cond(x.sum() > 0, case.loss, lambda x: 0 * x.sum(), x)
        functions = (jax.jit(case.loss), jax.checkpoint(case.loss), in_loop, in_branch)
        return [jax.grad(function)(x) for function in functions]

    for found in gradients(case.x):
        assert_close(found, case.gradient)
    assert_close(jax.grad(jax.jit(case.loss))(case.x), case.gradient)


@jax_only
@every_layer
def test_maps_of_jax(name, quick_xla):
    import jax

    case = Case(name)

    @jax.jit
    def mapped(xs, ys, steps):
        return (
            jax.vmap(case.mix)(xs, steps),
            jax.vmap(lambda x, y: case.mix(x, y=y))(xs, ys),
            jax.vmap(jax.grad(case.loss))(xs / 2),
        )

    with_steps, with_labels, gradients = mapped(
        np.stack([case.x, 2 * case.x]), np.stack([case.y, case.y]), np.array([0, 1])
    )
    assert_close(with_steps[1], 2 * case.mixed)
    assert_close(with_labels[1], 2 * case.mixed)
    assert_close(gradients[1], case.gradient)


@jax_only
@every_layer
def test_derivatives_forward_by_jax(name, quick_xla):
    """Right, or refused: the quick gradient of a blend only goes backward."""
    import jax

    case = Case(name)
    derivative = jax.jit(lambda x: jax.jvp(case.mix, (x,), (2 * x,))[1])
    if name == "blend":
        with pytest.raises(TypeError, match="forward-mode"):
            derivative(case.x)
    else:
        assert_close(derivative(case.x), 2 * case.mixed)


@torch_only
@every_layer
def test_derivatives_of_pytorch(name):
    import torch

    case = Case(name)
    assert_close(torch.func.grad(case.loss)(case.x), case.gradient)
    assert_close(torch.func.jacrev(case.loss)(case.x), case.gradient)
    assert_close(torch.func.vmap(torch.func.grad(case.loss))(torch.stack([case.x, 2 * case.x]))[1], case.gradient)
    assert_close(torch.func.jvp(case.mix, (case.x,), (2 * case.x,))[1], 2 * case.mixed)
    # Half of the second derivative of the square of the mixed inputs, along x, is their square.
    along_x = lambda x: torch.func.jvp(lambda x: case.mix(x).square().sum(), (x,), (case.x,))[1]
    second = torch.func.jvp(along_x, (case.x,), (case.x,))[1]
    assert_close(second / 2, np.square(case.mixed).sum())
    hessian = torch.func.hessian(lambda x: case.mix(x).square().sum())(case.x)
    assert_close((hessian * case.x).sum((-4, -3, -2, -1)), 2 * _back(case, case.mixed))


def _back(case, upstream):
    import torch

    return to_numpy(torch.func.vjp(case.mix, case.x)[1](torch.tensor(upstream))[0])


@torch_only
@every_layer
def test_maps_of_pytorch(name):
    import torch

    case = Case(name)
    xs, ys = torch.stack([case.x, 2 * case.x]), torch.stack([case.y, case.y])
    assert_close(torch.func.vmap(case.mix)(xs)[1], 2 * case.mixed)
    assert_close(torch.func.vmap(lambda x, y: case.mix(x, y=y))(xs, ys)[1], 2 * case.mixed)


@torch_only
def test_wrong_labels_are_found_within_a_gradient():
    import torch

    case = Case("blend")
    with pytest.raises(ValueError, match="num_classes"):
        torch.func.grad(lambda x: case.mix(x, y=case.y + 1).sum())(case.x)


@torch_only
def test_compiled_by_pytorch():
    import torch

    case = Case("blend")
    assert_close(torch.compile(lambda x: case.mix(x) + 1, backend="eager")(case.x), case.mixed + 1)
    for function in (case.mix, lambda x: case.layer(x, case.y)[0]):
        torch.compiler.reset()
        with pytest.raises(Exception, match=r"outside of `torch\.compile`"):
            torch.compile(function, backend="eager", fullgraph=True)(case.x)


@torch_only
@pytest.mark.parametrize("layout", ["strided", "jagged"])
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_nested_tensors_of_pytorch_are_refused(layout):
    import torch

    nested = torch.nested.nested_tensor([torch.ones(2, 3)] * N, layout=getattr(torch, layout))
    layer = kmix.MixUp(num_classes=3)
    for mix in (lambda batch: layer(*batch), lambda batch: layer.at_step(0, batch)):
        with pytest.raises(ValueError, match="dense tensors"):
            mix((nested, torch.arange(N) % 3))
