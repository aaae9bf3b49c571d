"""The three spaces of the array namespace: each operation gives the same result, as a tensor of its own framework."""

import ast
import functools
import importlib.util
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import on, tf, to_numpy

import kmix
from kmix import _backend
from kmix._backend import KERAS, NUMPY, TENSORFLOW, KerasOps, Namespace, NumPy, TensorFlow

BACKEND = keras.backend.backend()


class Of:
    """An argument created from the namespace."""

    def __init__(self, make):
        self.make = make


def jitted(function):
    import jax

    return jax.jit(function)


def in_graph(function):
    return tf.function(function, autograph=False)


# name: (the space, how to compile a function)
SPACES = {"numpy": (NUMPY, None), "tensorflow": (TENSORFLOW, None), "tensorflow graph": (TENSORFLOW, in_graph)}
if BACKEND != "tensorflow":
    SPACES["native"] = (KERAS, None)
if BACKEND == "jax":
    SPACES["native jit"] = (KERAS, jitted)
every_space = pytest.mark.parametrize("space", SPACES)


def array(values, dtype="float32"):
    return np.asarray(values, dtype)


def words(values):
    return Of(lambda xp: xp.word(xp.asarray(array(values, "int32"))))


def lowbias32(x):
    x = (x ^ x >> 16) * 0x7FEB352D % 2**32
    x = (x ^ x >> 15) * 0x846CA68B % 2**32
    return x ^ x >> 16


X = array([[1, 2, 3], [4, 5, 6]])
ROWS = array([[0, 1], [10, 11], [20, 21], [30, 31]])
ODD = 0x846CA68B
YES, NO = array(True, bool), array(False, bool)

# (operation, arguments, the correct result). NumPy arrays among the arguments become tensors.
TABLE = [
    ("all", (array([[1, 0]], bool),), False),
    ("all", (array([[1, 1], [1, 1]], bool),), True),
    ("any", (array([[0, 0], [1, 0]], bool),), True),
    ("any", (array([0, 0], bool),), False),
    ("any", (array([[0, 0], [1, 0]], bool), 1), [False, True]),
    ("arange", (4,), [0, 1, 2, 3]),
    ("argmax", (array([3, 1, 5, 2, 5]),), 2),
    ("argmax", (array([[3, 1, 2], [-np.inf, 6, 4]]),), [0, 1]),
    ("argsort", (array([3, 1, 2]),), [1, 2, 0]),
    ("argsort", (array([[3, 1, 2], [5, 6, 4]], "int32"),), [[1, 2, 0], [2, 0, 1]]),
    ("asarray", (X,), X),
    ("asarray", (Of(lambda xp: X),), X),
    ("asarray", (2.5,), 2.5),
    ("along", (array([1, 2]), Of(lambda xp: xp.asarray(np.zeros((2, 5, 6))))), [[[1]], [[2]]]),
    ("along", (X, Of(lambda xp: xp.asarray(np.zeros((2, 3, 6))))), X[:, :, None]),
    ("along", (X, X), X),
    ("apply_if", (YES, lambda x: x * 2, X), X * 2),
    ("apply_if", (NO, lambda x: x * 2, X), X),
    ("cast", (array([1.7, -2.2]), "int32"), [1, -2]),
    ("cast", (array([0, 3], "int32"), "bool"), [False, True]),
    ("cast", (2, "float32"), 2.0),
    ("concat", ([X, X + 1],), np.concatenate([X, X + 1])),
    ("concat", ([X, X[:, :1]], 1), X[:, [0, 1, 2, 0]]),
    ("concat", ([X, X[:, :1]], -1), X[:, [0, 1, 2, 0]]),
    ("evaluate", (lambda step: 0.5, array(3, "int32")), 0.5),
    ("evaluate", (lambda step: step * 0.5, array(3, "int32")), 1.5),
    ("evaluate", (kmix.schedules.Linear(0.0, 1.0, 4), array(3, "int32")), 0.75),
    ("gram", (X,), [[14, 32], [32, 77]]),
    ("pick", (X, array([[2], [0]], "int32")), [[3], [4]]),
    ("pick", (X[None], array([[[2, 2], [0, 1]]], "int32")), [[[3, 3], [4, 5]]]),
    ("hash", (words([0, 1, -1, 0x12345678]),), [lowbias32(x) for x in (0, 1, 2**32 - 1, 0x12345678)]),
    ("power", (array([4, 9]), 0.5), [2, 3]),
    ("reshape", (X, (3, -1)), [[1, 2], [3, 4], [5, 6]]),
    ("shift", (words([-1, 512]), 9), [2**23 - 1, 1]),
    ("sigmoid", (array([0, -200, 200]),), [0.5, 0, 1]),
    ("size", (X, 1), 3),
    ("size", (X, -2), 2),
    ("sum", (X, 1), X.sum(1)),
    ("stack", ([X[0], X[1]],), X),
    ("stack", ([X[0], X[1]], 1), X.T),
    ("switch", (array(1, "int32"), Of(lambda xp: [lambda: xp.asarray(X), lambda: xp.asarray(X + 1)])), X + 1),
    ("transpose", (X,), X.T),
    ("take", (X, array([1, 1, 0], "int32")), X[[1, 1, 0]]),
    ("take", (ROWS, array([[1, 0], [0, 0]], "int32")), ROWS[[1, 0, 2, 2]]),
    ("unstack", (X,), X),
    ("where", (array([1, 0], bool), array([1, 2]), array([3, 4])), [1, 4]),
    ("where", (array([[1], [0]], bool), X, 0.0), [[1, 2, 3], [0, 0, 0]]),
    ("word", (array([-1, 7], "int32"),), [2**32 - 1, 7]),
    ("word", (2**32 - 1,), 2**32 - 1),
    (
        "word",
        (Of(lambda xp: words([-3, 9]).make(xp) * xp.word(ODD)),),
        [-3 * ODD % 2**32, 9 * ODD % 2**32],
    ),
    ("words", (3,), [0, 1, 2]),
    # The optional ones.
    ("interpolate", (array([1, 4, np.inf]), array([3, 4, np.inf]), array([0.25, 0.3, 0.5])), [2.5, 4, np.inf]),
    ("interpolate", (array([1, np.inf]), array([-np.inf, 2]), array([0.5, 0.5])), [-np.inf, np.inf]),
    ("by_rows", (lambda x: x + 1, ROWS.reshape(2, 2, 2)), ROWS.reshape(2, 2, 2) + 1),
    ("fused", (lambda pair: pair["a"] * pair["b"], {"a": X, "b": X}), X * X),
    ("rows", (array([1, 0, 2], "int32"),), [1, 0, 2]),
    ("rows", (array([[1, 0], [0, 1], [1, 1]], "int32"),), [1, 0, 2, 3, 5, 5]),
]
# Operations whose result may be a Python number.
NUMBERS = ("size", "word")
# Operations with separate tests below.
BY_EFFECT = ("require", "require_equal_sizes")
OPTIONAL = {
    *("size", "unstack", "along", "switch", "apply_if", "rows", "hash", "by_rows", "interpolate"),
    *("evaluate", "evaluate_symbol", "run", "fused", *BY_EFFECT),
}
APART = ("math", "integer", "custom_gradient", "evaluate_symbol", "run", *BY_EFFECT)


def answer(space, operation, arguments):
    """What a space gives, on tensors of its framework."""
    xp, compiled = SPACES[space]
    leaves = keras.tree.flatten(arguments)

    def call(*tensors):
        tensors = iter(tensors)
        make = lambda leaf: next(tensors) if isinstance(leaf, np.ndarray) else getattr(leaf, "make", lambda _: leaf)(xp)
        made = keras.tree.map_structure(make, arguments)
        return getattr(xp, operation)(*made)

    tensors = [xp.asarray(leaf) for leaf in leaves if isinstance(leaf, np.ndarray)]
    return (compiled(call) if compiled else call)(*tensors)


@every_space
@pytest.mark.parametrize(
    ("operation", "arguments", "right"),
    [pytest.param(*line, id=f"{i}-{line[0]}") for i, line in enumerate(TABLE)],
)
def test_each_operation_gives_the_right_answer_in_its_own_framework(space, operation, arguments, right):
    xp, compiled = SPACES[space]
    result = answer(space, operation, arguments)
    for leaf in keras.tree.flatten(result):
        number = operation in NUMBERS and isinstance(leaf, (int, np.integer))
        assert number or _backend.namespace(leaf) is xp
        assert number or compiled or xp is not NUMPY or isinstance(leaf, (np.ndarray, np.generic))
    rows = isinstance(result, (list, tuple))
    result = np.stack(to_numpy(list(result))) if rows else to_numpy(result)
    tolerance = 1e-6 if "float" in result.dtype.name else 0
    np.testing.assert_allclose(result.astype("float64"), array(right, "float64"), rtol=tolerance, atol=1e-30)


@pytest.mark.skipif(BACKEND != "torch", reason="on the others the type of the answer tells")
def test_no_tensor_of_pytorch_is_handed_to_numpy(monkeypatch):
    import torch

    def refuse(*_, **__):
        raise AssertionError("NumPy has read a tensor")

    # Its functions return tensors in any case, so the type of a result proves nothing.
    monkeypatch.setattr(torch.Tensor, "__array__", refuse)
    with pytest.raises(AssertionError, match="NumPy has read"):
        np.exp(torch.tensor(X))
    for operation, arguments, _ in TABLE:
        answer("native", operation, arguments)


def test_the_table_holds_every_operation():
    offered = {name for name in vars(Namespace) if not name.startswith("_")} - {"MATH"}
    assert {line[0] for line in TABLE} | set(APART) == offered
    assert Namespace.__abstractmethods__ == offered - OPTIONAL


@pytest.mark.parametrize("space", [name for name, (_, compiled) in SPACES.items() if not compiled])
def test_dtypes(space):
    xp = SPACES[space][0]
    for dtype in ("int32", "uint8", "float16", "bfloat16", "float32", "bool"):
        assert _backend.dtype(xp.cast(xp.asarray(X), dtype)) == dtype
    assert _backend.dtype(xp.arange(3)) == _backend.dtype(xp.argsort(xp.asarray(X[0]))) == "int32"
    assert _backend.dtype(xp.evaluate(lambda step: 1, xp.asarray(array(3, "int32")))) == "float32"
    widest = xp.cast(xp.arange(3), xp.integer)
    assert _backend.dtype(widest) == ("int32" if xp is KERAS and BACKEND == "jax" else "int64")


@pytest.mark.parametrize("function", Namespace.MATH)
@every_space
def test_math(space, function):
    xp, compiled = SPACES[space]
    arguments = {"logical_not": [array([1, 0], bool)], "maximum": [X, X[::-1]], "minimum": [X, X[::-1]]}
    arguments = arguments.get(function, [X / 3])
    call = lambda *tensors: getattr(xp.math, function)(*tensors)
    result = (compiled(call) if compiled else call)(*map(xp.asarray, arguments))
    assert _backend.namespace(result) is xp
    np.testing.assert_allclose(to_numpy(result), getattr(np, function)(*arguments), rtol=1e-6, atol=1e-7)


def test_math_names_what_is_used():
    used = set()
    for path in pathlib.Path(kmix.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "xp.math":
                used.add(node.attr)
    assert used == set(Namespace.MATH)


@pytest.mark.parametrize("space", [name for name, (_, compiled) in SPACES.items() if not compiled])
def test_run(space):
    xp = SPACES[space][0]
    bound = functools.partial(lambda xp, x, y, times: times * (x + y), xp, times=2)
    result = xp.run(bound, (xp.asarray(X), xp.asarray(X)))
    assert _backend.namespace(result) is xp
    np.testing.assert_array_equal(to_numpy(result), X * 4)


def test_custom_gradient_is_used():
    # Not the true gradient, to tell the two apart.
    functions = lambda x, factor: x * factor, lambda upstream, factor: upstream * (factor + 4)
    assert NUMPY.custom_gradient(*functions)(X, 3.0).tolist() == (X * 3).tolist()
    with tf.GradientTape() as tape:
        x = tf.Variable(X)
        y = TENSORFLOW.custom_gradient(*functions)(tf.convert_to_tensor(x), tf.constant(3.0))
    np.testing.assert_array_equal(y, X * 3)
    np.testing.assert_array_equal(tape.gradient(y, x), np.full(X.shape, 7))
    if BACKEND == "jax":
        import jax

        total = lambda x: KERAS.custom_gradient(*functions)(x, jax.numpy.float32(3)).sum()
        np.testing.assert_array_equal(jax.grad(total)(X), np.full(X.shape, 7))
    if BACKEND == "torch":
        import torch

        x = torch.tensor(X, requires_grad=True)
        y = KERAS.custom_gradient(*functions)(x, torch.tensor(3.0))
        y.sum().backward()
        np.testing.assert_array_equal(y.detach(), X * 3)
        np.testing.assert_array_equal(x.grad, np.full(X.shape, 7))


@pytest.mark.parametrize("space", [name for name, (_, compiled) in SPACES.items() if compiled is not jitted])
def test_require(space):
    xp, compiled = SPACES[space]

    def call(condition, x):
        xp.require(condition, "no such thing")
        return x

    call = compiled(call) if compiled else call
    good, bad = (xp.asarray(array(values, bool)) for values in ([1, 1], [1, 0]))
    call(good, xp.asarray(X))
    with pytest.raises(tf.errors.InvalidArgumentError if compiled else ValueError, match="no such thing"):
        call(bad, xp.asarray(X))


def test_require_equal_sizes():
    unknown = tf.TensorSpec((None, 2))
    check = lambda x, y: TENSORFLOW.require_equal_sizes([(x, 0), (y, 0)], "sizes differ")
    check = tf.function(check, autograph=False, input_signature=[unknown, unknown])
    check(ROWS, ROWS)
    with pytest.raises(tf.errors.InvalidArgumentError, match="sizes differ"):
        check(ROWS, ROWS[:2])
    with pytest.raises(tf.errors.InvalidArgumentError, match="sizes differ"):
        check(ROWS[:2], ROWS)


def test_tensorflow_takes_tensors_of_every_framework():
    for x in (X, tf.constant(X), keras.ops.convert_to_tensor(X)):
        result = TENSORFLOW.asarray(x)
        assert tf.is_tensor(result)
        np.testing.assert_array_equal(result, X)


EXACT_STEPS = [3, 2**24 + 1, 2**31 - 1, 2**31 + 5, 2**32 - 1]
SCHEDULES = {
    "arithmetic": lambda s: 0.4 * (s % 2) + 0.1,
    "before a step": lambda s: 0.25 * ((s - 1000) // 2**22 % 7),
    "keras.ops": lambda s: keras.ops.where(s < 2**24, s % 3, 0.3),
    "linear": kmix.schedules.Linear(0.0, 0.4, 2**31, transition_begin=2**24),
    "cosine": kmix.schedules.Cosine(0.4, 0.1, 1000),
    "joined": kmix.schedules.Join([0.1, lambda s: 0.2 * (s % 2), kmix.schedules.Linear(0, 1, 9)], [5, 2**31 - 9]),
    "a constant": lambda s: 0.3,
}


def evaluations(name, step):
    """The value of a schedule at a step on every code path."""
    schedule = SCHEDULES[name]
    yield NUMPY.evaluate(schedule, step)
    if BACKEND == "tensorflow" or "keras" not in name:
        graph = tf.function(lambda s: TENSORFLOW.evaluate(schedule, s), autograph=False)
        yield graph(tf.constant(step, "int64"))
        yield graph(tf.constant(step, "uint32"))
    if BACKEND == "jax":
        import jax

        for dtype in ("uint32", "int32") if step < 2**31 else ("uint32",):
            yield jax.jit(lambda s: KERAS.evaluate(schedule, s))(np.asarray(step, dtype))
    if BACKEND == "torch":
        import torch

        yield KERAS.evaluate(schedule, torch.tensor(step))


@pytest.mark.parametrize("step", EXACT_STEPS)
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_see_the_step_exactly(name, step):
    expected = float(_backend.values(SCHEDULES[name](step)))
    for value in evaluations(name, step):
        assert _backend.dtype(value) == "float32"
        np.testing.assert_allclose(to_numpy(value), expected, rtol=2e-7, atol=1e-7)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow refuses to mix float32 and float64")
def test_a_schedule_of_single_precision_in_a_graph():
    schedule = lambda s: keras.ops.where(s < 100, 0.1, 0.3) * keras.ops.minimum(s / 2**10, 1.0)
    evaluate = tf.function(lambda s: TENSORFLOW.evaluate(schedule, s), autograph=False)
    values = [float(evaluate(tf.constant(step, "int64"))) for step in (99, 512, 2**24 - 1, 2**24)]
    np.testing.assert_allclose(values, [0.1 * 99 / 1024, 0.15, 0.3, np.nan], rtol=1e-6)


WRONG = {"None": None, "NaN": float("nan"), "negative": -0.1, "infinite": float("inf"), "two": np.ones(2), "a": "a"}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_value_that_a_schedule_must_not_have(wrong):
    for make in (lambda x: x, tf.constant, keras.ops.convert_to_tensor):
        if make is not keras.ops.convert_to_tensor or wrong != "a":
            value = WRONG[wrong] if WRONG[wrong] is None else make(WRONG[wrong])
            for xp in (NUMPY, TENSORFLOW):
                with pytest.raises(ValueError, match="schedule must return one finite number"):
                    xp.evaluate(lambda step, value=value: value, 3)


@pytest.mark.parametrize("wrong", ["NaN", "negative", "infinite"])
def test_it_is_nan_where_it_cannot_be_read(wrong):
    add = lambda step: WRONG[wrong] + 0.0 * step
    values = [tf.function(lambda s: TENSORFLOW.evaluate(add, s), autograph=False)(tf.constant(3))]
    if BACKEND == "jax":
        import jax

        values.append(jax.jit(lambda s: KERAS.evaluate(add, s))(3))
    assert np.isnan(values).all()


def test_two_numbers_are_too_many_for_a_schedule_in_a_graph():
    evaluate = lambda step: TENSORFLOW.evaluate(lambda s: s * tf.ones(2, s.dtype), step)
    with pytest.raises(ValueError, match="one finite number"):
        tf.function(evaluate, autograph=False)(tf.constant(3))


def test_a_schedule_of_keras_runs_in_a_graph():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.5, 2, 0.25)
    for space in ("numpy", "tensorflow", "tensorflow graph"):
        result = answer(space, "evaluate", (schedule, array(4, "int32")))
        np.testing.assert_allclose(to_numpy(result), 0.5 / 16, rtol=1e-6)


@pytest.mark.parametrize("missing", sorted(Namespace.__abstractmethods__))
def test_a_twin_with_a_missing_operation_cannot_be_made(missing):
    operations = dict.fromkeys(Namespace.__abstractmethods__)
    assert isinstance(type("Whole", (Namespace,), operations)(), Namespace)
    del operations[missing]
    with pytest.raises(TypeError, match=rf"\b{missing}\b"):
        type("Partial", (Namespace,), operations)()


def test_nothing_falls_through_to_another_twin():
    for space in (NumPy, KerasOps, TensorFlow):
        assert space.__mro__[1:] == (Namespace, *Namespace.__mro__[1:])
        assert set(vars(space)) >= Namespace.__abstractmethods__


def test_the_twin_is_picked_by_the_arrays():
    native = keras.ops.convert_to_tensor(X)
    assert _backend.namespace(X, 3, None) is _backend.namespace() is NUMPY
    assert _backend.namespace(X, tf.constant(X)) is _backend.namespace(tf.Variable(X)) is TENSORFLOW
    assert _backend.namespace(X, native) is (TENSORFLOW if BACKEND == "tensorflow" else KERAS)
    assert _backend.namespace(native, tf.constant(X)) is TENSORFLOW


def test_plans_are_drawn_with_numpy_unless_something_is_symbolic():
    xp = _backend.namespace(tf.constant(X))
    assert _backend.plan_namespace(xp, tf.constant(X), tf.constant(3), 1) == (NUMPY, 3, 1)
    seen = []

    @tf.function(autograph=False)
    def traced(step):
        seen.append(_backend.plan_namespace(xp, X, step, 0)[0])
        seen.append(_backend.plan_namespace(xp, step, 3, 0)[0])
        seen.append(_backend.plan_namespace(xp, X, 3, step)[0])
        return step

    traced(tf.constant(3))
    assert seen == [TENSORFLOW] * 3


class Plot(np.ndarray):
    """A subclass, as np.memmap is."""


KINDS = [
    *((x, "numpy", False) for x in (X, X[0, 0], X.view(Plot), np.ma.masked_array(X))),
    *((x, "tensorflow", False) for x in (tf.constant(X), tf.Variable(X))),
    *((x, None, False) for x in (3, None, "x", [X], keras.Variable(X), tf.ragged.constant([[1], [1, 2]]))),
    (keras.KerasTensor((2,)), "keras", True),
]


@pytest.mark.parametrize(("x", "framework", "symbolic"), KINDS, ids=lambda x: type(x).__name__)
def test_what_a_type_tells(x, framework, symbolic):
    for _ in range(2):
        found = _backend.kind(x)
        assert found[:2] == (framework, symbolic)
        assert found.xp is {"tensorflow": TENSORFLOW, "keras": KERAS}.get(framework, NUMPY)


def test_a_variable_has_no_values_in_a_graph():
    variable, found = tf.Variable(X), []
    for _ in range(2):
        tf.function(lambda x: found.append((_backend.kind(variable), _backend.kind(x))) or x, autograph=False)(X)
        found.append([_backend.kind(variable)])
    assert [[kind.symbolic for kind in kinds] for kinds in found] == [[True, True], [False]] * 2


@on("jax", why="the threads of JAX would forbid later tests to fork; other backends see tracers in a process below")
def test_tracers_of_every_transformation_are_symbolic():
    import jax

    found = []
    note = lambda x: found.append(_backend.kind(x)) or 2.0 * x
    x = jax.numpy.ones(2)
    for transform in (jax.jit, jax.vmap, jax.checkpoint, lambda f: jax.grad(lambda x: f(x).sum()), jax.make_jaxpr):
        transform(note)(x)
    jax.jvp(note, (x,), (x,))
    jax.lax.scan(lambda carry, x: (note(carry), x), x, x)
    note(x)
    assert [kind.symbolic for kind in found] == [True] * (len(found) - 1) + [False]
    assert all(kind.framework == "jax" and kind.xp is KERAS for kind in found)


@pytest.mark.slow
def test_tensors_of_pytorch_by_type():
    torch = pytest.importorskip("torch")
    expected = ("torch", False, KERAS if BACKEND == "torch" else NUMPY)
    for x in (torch.ones(2), torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2)).data):
        assert _backend.kind(x) == expected
    assert torch.func.vmap(lambda x: _backend.kind(x) == expected and 2 * x)(torch.ones(2)).tolist() == [2, 2]


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "torch"])
def test_a_framework_may_be_imported_after_the_first_look_up(framework):
    if framework == BACKEND:
        pytest.skip("the backend is imported with Keras")
    if importlib.util.find_spec(framework) is None:
        pytest.skip(f"{framework} is not installed (make test-all installs it)")
    code = (
        "import keras, numpy as np\nfrom kmix import _backend\n"
        "for x in (3, None, np.ones(2), keras.ops.ones(2), 'x'): _backend.kind(x)\n"
        f"import {framework} as f, sys\n"
        "found, see = [], lambda x: found.append(_backend.kind(x)) or x\n"
        "if f.__name__ == 'jax': f.jit(see)(see(f.numpy.ones(2)))\n"
        "else: f.func.vmap(see)(see(f.ones([2])))\n"
        "sys.exit([kind[:2] for kind in found] != [(f.__name__, False), (f.__name__, f.__name__ == 'jax')])"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_names_of_dtypes_and_shapes():
    for make in (np.asarray, tf.constant, keras.ops.convert_to_tensor):
        for name in ("float32", "int32", "bool", "uint8"):
            x = make(np.ones((2, 3), name))
            assert _backend.dtype(x) == _backend.dtype(x) == name
            assert _backend.static_shape(x) == (2, 3)
    assert _backend.dtype(keras.Variable(X)) == "float32"
    assert _backend.static_shape(keras.KerasTensor((None, 3))) == (None, 3)
    found, shapes = [], [tf.TensorSpec(None), tf.TensorSpec((None, 2))]
    read = lambda *xs: found.extend(map(_backend.static_shape, xs))
    tf.function(read, shapes, autograph=False).get_concrete_function()
    assert found == [None, (None, 2)]


def test_a_trainer_may_be_collected_while_a_value_it_shares_is_set():
    class Owner:
        def __init__(self):
            self.weight, self.others = keras.Variable(0.0), []

        def refresh(self):
            self.others.clear()

    first, second = Owner(), Owner()
    cell, weights = _backend.Cell(0.5), [first.weight, second.weight]
    cell.share(first.weight, first.refresh)
    cell.share(second.weight, second.refresh)
    first.others.append(second)
    del second
    cell.assign(0.25)
    assert to_numpy([weight.value for weight in weights]) == [0.25, 0.25]
    cell.assign(0.125)
    assert to_numpy([weight.value for weight in weights]) == [0.125, 0.25]
