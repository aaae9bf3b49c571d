"""In a TensorFlow graph: one compiled program if shapes allow it, else plain ops, and the same batch either way."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import tf, to_numpy

import kmix
from kmix._backend import TENSORFLOW, xla
from kmix._backend.execution import Programs
from kmix.pairing import RandomPairs
from kmix.plan import PlanKey
from kmix.targets import Labels

pytestmark = [pytest.mark.xla("everywhere"), pytest.mark.alike]
SIZE, CLASSES = 6, 3
KINDS = ("mixup", "cutmix", "choice")


def make(kind, jit_compile=True, alpha=0.5, target=None, **settings):
    settings = {"target": target or Labels(CLASSES), "jit_compile": jit_compile, **settings}
    mixup = lambda: kmix.MixUp(alpha, **{"seed": 1, **settings})
    cutmix = lambda: kmix.CutMix(**{"seed": 2, "data_format": "channels_last", **settings})
    choice = lambda: kmix.RandomChoice([mixup(), cutmix()], seed=3, jit_compile=jit_compile)
    return {"mixup": mixup, "cutmix": cutmix, "choice": choice}[kind]()


def images(dtype="float32"):
    return tf.cast(np.random.default_rng(0).uniform(0, 255, (SIZE, 8, 8, 3)), dtype)


IDS = np.array([0, 1, 2, 0, 1, 2])
WEIGHTS = np.arange(SIZE, dtype="float32")
LABELS = {"ids": IDS, "column of ids": IDS[:, None], "soft": np.eye(CLASSES, dtype="float32")[IDS]}


def graph(function, *arguments):
    """The operations of the graph of `function`."""
    return tf.function(function, autograph=False).get_concrete_function(*arguments).graph.get_operations()


def is_compiled(layer, *specs):
    """Whether the layer uses XLA for specs of this kind."""
    return any("_XlaMustCompile" in op.node_def.attr for op in graph(layer.at_step, tf.constant(0), specs))


def steps(layer, batch, count=4):
    ds = tf.data.Dataset.from_tensors(batch).repeat(count).enumerate()
    return [to_numpy(mixed) for mixed in ds.map(layer.at_step)]


def assert_close(mixed, expected, tolerance=1e-6):
    keras.tree.assert_same_structure(mixed, expected)
    for ours, theirs in zip(keras.tree.flatten(mixed), keras.tree.flatten(expected), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = ours.astype("float64"), theirs.astype("float64")
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * np.abs(theirs).max(initial=0))


@pytest.mark.fast("mixup-column of ids")
@pytest.mark.alike
@pytest.mark.parametrize("labels", list(LABELS))
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_agree(kind, labels):
    batch = (images() / 255, LABELS[labels], WEIGHTS)
    assert is_compiled(make(kind), *map(tf.constant, batch))
    assert not is_compiled(make(kind, jit_compile=False), *map(tf.constant, batch))
    for mixed, expected in zip(steps(make(kind), batch), steps(make(kind, jit_compile=False), batch), strict=True):
        assert_close(mixed, expected)


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("dtype", ["uint8", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_agree_in_every_dtype(kind, dtype):
    batch = (images(dtype), IDS)
    for mixed, expected in zip(steps(make(kind), batch), steps(make(kind, jit_compile=False), batch), strict=True):
        assert_close(mixed, expected)
        # A choice promotes the dtypes of its layers: the dtype of the inputs (CutMix) and of the policy (MixUp).
        wanted = {"cutmix": dtype, "mixup": "float32"}.get(kind) or keras.backend.result_type(dtype, "float32")
        assert mixed[0].dtype.name == wanted


@pytest.mark.slow
def test_structures_go_through_as_they_are():
    y = {"kind": IDS, "value": WEIGHTS, "more": (LABELS["soft"],)}
    batch = ({"image": images(), "table": (WEIGHTS[:, None],)}, y, {"kind": WEIGHTS, "value": WEIGHTS, "more": WEIGHTS})
    target = {"kind": Labels(CLASSES), "value": Labels(), "more": [Labels()]}
    compiled, plain = (steps(make("mixup", jit, target=target), batch) for jit in (True, False))
    assert_close(compiled, plain)
    keys = {"images": images(), "labels": IDS, "name": np.array(["a"] * SIZE)}
    target = {"labels": Labels(CLASSES), "name": "keep"}
    compiled, plain = (steps(make("mixup", jit, target=target), keys)[0] for jit in (True, False))
    assert (compiled.pop("name") == plain.pop("name")).all()
    assert_close(compiled, plain)


def spec(*shape, dtype="float32"):
    return tf.TensorSpec(shape, dtype)


@pytest.mark.parametrize(
    ("x", "y", "compiled"),
    [
        (spec(None, 8, 8, 3), spec(None, dtype="int64"), True),
        (spec(None, 8, 8, 3, dtype="uint8"), spec(None, CLASSES), True),
        (spec(None, None, 8, 3), spec(None, dtype="int64"), False),
        (spec(None, 8, 8, 3), spec(None, None), False),
        (tf.TensorSpec(None), spec(None, CLASSES), False),
    ],
)
def test_all_sizes_but_that_of_the_batch_must_be_known(x, y, compiled):
    assert is_compiled(make("mixup"), x, y) == compiled


@pytest.mark.fast("shape5")
@pytest.mark.alike
@pytest.mark.parametrize(
    "shape", [(SIZE, 28, 28, 1), (None, 28, 28, 1), (None, 5, 8, 8, 3), (None, 4, 1), (None, 0, 3), (None, 1)]
)
def test_the_shape_of_a_batch_stays_known(shape):
    """Batches enter the program as rows and leave it in their own shape."""
    x = tf.random.uniform((SIZE, *shape[1:]))
    for kind in ["mixup"] if 0 in shape or len(shape) < 3 else ["mixup", "cutmix"]:
        specs = spec(*shape), spec(shape[0], dtype="int64")
        assert is_compiled(make(kind), *specs)
        mapped = [
            tf.function(make(kind, jit_compile).at_step, autograph=False).get_concrete_function(tf.constant(0), specs)
            for jit_compile in (True, False)
        ]
        assert [tuple(function.structured_outputs[0].shape) for function in mapped] == [shape] * 2
        compiled, plain = (to_numpy(function(tf.constant(0), x, tf.constant(IDS))) for function in mapped)
        assert_close(compiled, plain)


def test_dtypes_that_xla_does_not_have_take_plain_ops():
    x = tf.strings.as_string(images())
    assert not is_compiled(make("cutmix"), x, tf.constant(IDS))
    layer = make("cutmix")
    mixed, _ = to_numpy(next(iter(tf.data.Dataset.from_tensors((x, IDS)).enumerate().map(layer.at_step))))
    numbers, _ = layer.at_step(0, (images().numpy(), IDS))
    assert (mixed == tf.strings.as_string(numbers).numpy()).all()


def test_without_xla_plain_ops_serve(monkeypatch):
    assert is_compiled(make("mixup"), images(), tf.constant(IDS))
    monkeypatch.setattr(tf.test, "is_built_with_xla", lambda: False)
    assert not is_compiled(make("mixup"), images(), tf.constant(IDS))


def test_eager_tensors_and_training_steps_are_not_compiled():
    x, y = images(), tf.constant(LABELS["soft"])
    assert keras.tree.map_structure(tf.is_tensor, make("mixup").at_step(tf.constant(0), (x, y))) == (True, True)

    def step(x, y):
        layer = make("mixup")
        batch, values = layer._read((x, y)).check_values().encode(), layer._values_at(TENSORFLOW, 0, x)
        return tuple(keras.tree.flatten(layer._draw_and_mix(TENSORFLOW, PlanKey(0), values, batch, False).arrays))

    assert not any("_XlaMustCompile" in op.node_def.attr for op in graph(step, x, y))


@pytest.mark.fast("mixup")
@pytest.mark.parametrize("kind", KINDS)
def test_little_is_left_outside_of_the_program(kind):
    """Every operation outside the program costs microseconds per batch and tenths of a millisecond per epoch."""
    compiled, plain = (graph(make(kind, jit_compile), images(), tf.constant(IDS)) for jit_compile in (True, False))
    assert len(compiled) < 45 < 150 < len(plain)


@pytest.mark.slow
def test_a_schedule_may_be_anybodys_function():
    """It is called outside the compiled program, where TensorFlow can call Python."""
    seen = []

    def schedule(step):
        def value(number):
            seen.append(int(number))
            return np.float32(0.0 if number < 2 else 1.0)

        return tf.ensure_shape(tf.numpy_function(value, [step], "float32"), ())

    x, y = images(), LABELS["soft"]
    assert is_compiled(make("mixup", alpha=schedule), x, tf.constant(y))
    mixed = steps(make("mixup", alpha=schedule), (x, y))
    assert [np.array_equal(labels, y) for _, labels in mixed] == [True, True, False, False]
    assert set(seen) == {0, 1, 2, 3}


@pytest.mark.slow
def test_gradients_flow_through():
    x, y = images() / 255, tf.constant(LABELS["soft"])

    def gradient(layer):
        def run(x):
            with tf.GradientTape() as tape:
                tape.watch(x)
                loss = tf.reduce_sum(layer.at_step(0, (x, y))[0] ** 2)
            return tape.gradient(loss, x)

        return tf.function(run, autograph=False)(x)

    np.testing.assert_allclose(gradient(make("mixup")), gradient(make("mixup", jit_compile=False)), rtol=1e-5)


COMPILATIONS = """
import os
os.environ["XLA_FLAGS"] = "--xla_dump_to={folder} --xla_dump_hlo_as_text"
import numpy as np, tensorflow as tf, kmix
mixup, cutmix = kmix.MixUp(num_classes=3), kmix.CutMix(num_classes=3, data_format="channels_last")
x, y = np.zeros((22, 8, 8, 3), "float32"), np.zeros(22, "int64")
sizes = tf.Variable([5, 4])
ds = tf.data.Dataset.from_tensor_slices((x, y)).batch(6)
vary = tf.data.Dataset.range(2).map(lambda i: (tf.zeros((sizes[i], 8, 8, 3)), tf.zeros((sizes[i],), tf.int64)))
ds = ds.concatenate(vary).map({layer}, num_parallel_calls=4)
for _ in range(4):
    shapes = [x.shape[0] for x, _ in ds]
assert shapes == [6, 6, 6, 4, 5, 4], shapes
"""


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("layer", ["mixup", "kmix.RandomChoice([mixup, cutmix])"])
def test_each_size_of_a_batch_is_compiled_once(layer, tmp_path):
    """Batches of 6, 5 and 4 samples, over four epochs and parallel calls, need three programs."""
    code = COMPILATIONS.format(folder=tmp_path, layer=layer)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr[-2000:]
    programs = [path.name for path in tmp_path.glob("*before_optimizations.txt") if "on_leaves" in path.name]
    assert len(programs) == 3, programs


def traced(monkeypatch):
    """The programs that are made, as a list that grows."""
    made, program = [], xla._Program
    monkeypatch.setattr(xla, "PROGRAMS", Programs())
    monkeypatch.setattr(xla, "_Program", lambda *arguments: made.append(program(*arguments)) or made[-1])
    return made


@pytest.mark.slow
@pytest.mark.alike
@pytest.mark.parametrize("kind", ["mixup", "choice"])
def test_data_sets_of_equal_structure_share_a_program(kind, monkeypatch):
    made, layer = traced(monkeypatch), make(kind)
    expected = steps(make(kind, jit_compile=False), (images(), IDS))
    for _ in range(3):
        for ours, other in zip(steps(layer, (images(), IDS)), expected, strict=True):
            assert_close(ours, other)
    # A layer with the same settings, too.
    steps(make(kind), (images(), IDS))
    assert len(made) == 1
    steps(layer, (images("uint8"), IDS))
    steps(layer, (images(), IDS, WEIGHTS))
    steps(layer, (images(), LABELS["soft"]))
    assert len(made) == 4
    batch = {"images": images(), "labels": IDS}
    for given in (batch, batch, dict(reversed(batch.items()))):
        for ours, (x, y) in zip(steps(layer, given), expected, strict=True):
            assert_close(ours, {"images": x, "labels": y})


@pytest.mark.slow
@pytest.mark.alike
def test_a_shared_program_follows_alpha_and_every_setting(monkeypatch):
    made, layer, batch = traced(monkeypatch), make("mixup"), (images(), IDS)
    steps(layer, batch)
    layer.alpha = 0.0
    np.testing.assert_array_equal(steps(layer, batch)[1][0], images())
    layer.alpha = 0.5
    assert len(made) == 1
    others = [
        {"seed": 9},
        {"rate": 0.0},
        {"per": "batch"},
        {"lam_at_least_half": True},
        {"include_clean": True},
        {"target": Labels(5)},
        {"target": Labels(CLASSES, class_weight={0: 2.0})},
        {"pairing": RandomPairs(allow_self=False)},
        {"dtype": "float16"},
    ]
    for settings in others:
        for ours, other in zip(
            steps(make("mixup", **settings), batch), steps(make("mixup", False, **settings), batch), strict=True
        ):
            assert_close(ours, other, 2e-3 if "dtype" in settings else 1e-6)
    made_by_settings = 1 + len(others)
    assert len(made) == made_by_settings
    replicas = [
        to_numpy(next(iter(tf.data.Dataset.from_tensors(batch).map(lambda x, y, r=r: layer.at_step(0, (x, y), r)))))
        for r in (0, 1, 0)
    ]
    assert_close(replicas[2], replicas[0])
    steps(layer, batch)
    # Two replicas, in batches of one.
    assert len(made) == made_by_settings + 2


@pytest.mark.slow
@pytest.mark.alike
def test_code_of_the_user_is_traced_anew(monkeypatch):
    made, factor = traced(monkeypatch), [1.0]
    layer = kmix.MixUp(0.5, seed=1, target=lambda y, plan: y * factor[0])
    batch = (images(), LABELS["soft"])
    np.testing.assert_array_equal(steps(layer, batch)[0][1], batch[1])
    factor[0] = 3.0
    np.testing.assert_array_equal(steps(layer, batch)[0][1], 3 * batch[1])

    class Own(kmix.MixUp):
        """May depend on anything."""

    own = Own(0.5, num_classes=CLASSES)
    steps(own, (images(), IDS))
    steps(own, (images(), IDS))
    steps(kmix.RandomChoice([own]), (images(), IDS))
    assert len(made) == 5


@pytest.mark.slow
def test_a_program_with_a_tensor_of_its_graph_is_not_kept():
    batch, layer = (images(), IDS), make("mixup")
    for replica in (3, 4):
        ds = tf.data.Dataset.from_tensors(batch).enumerate(replica)
        mixed = next(iter(ds.map(lambda step, batch: layer.at_step(0, batch, replica=step))))
        assert_close(to_numpy(mixed), layer.at_step(0, to_numpy(batch), replica=replica))


def test_programs_are_bounded():
    programs, made = Programs(limit=2), []
    for signature in (1, 2, 1, 3, 1, 2):
        programs.find(signature, lambda signature=signature: made.append(signature) or object())
    assert made == [1, 2, 3, 2]
    programs.drop(1)
    programs.find(1, lambda: made.append(1) or object())
    assert made == [1, 2, 3, 2, 1]
