"""Where mixup silently goes wrong: `keras.layers.MixUp` / `CutMix` and kmix, measured in one table.

    KERAS_BACKEND=jax python benchmarks/compare.py
    python benchmarks/compare.py --all-backends
    python benchmarks/compare.py --save             # also writes the table to RESULTS.md

Each row is a contract of kmix: a function below that runs both libraries and returns what it saw. "eager" is a
plain call on the Keras backend. "tf.data" is `ds.map(layer)`, which runs on TensorFlow ops on every backend,
so TensorFlow must be installed. The exit code is 1 if kmix breaks a contract.
"""

import argparse
import importlib.util
import os
import subprocess
import sys
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import results
import tensorflow as tf

import kmix

B = 8
IMAGES = np.random.default_rng(0).random((B, 16, 16, 3), dtype="float32")
IDS = np.arange(B)
ONE_HOT = np.eye(B, dtype="float32")
NAMES = ("MixUp", "CutMix")


# How to run a layer, and how to show the outcome.


def eager(layer, *batch, **options):
    """The result of a plain call on tensors of the Keras backend, as NumPy arrays."""
    batch = keras.tree.map_structure(keras.ops.convert_to_tensor, batch)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, layer(*batch, **options))


def tf_data(layer, *batch):
    """The result of `ds.map(layer)` for a data set of one batch, as NumPy arrays."""
    return next(repeated(batch if len(batch) > 1 else batch[0], 1).map(layer).as_numpy_iterator())


def repeated(batch, count):
    """A data set that repeats one batch."""
    return tf.data.Dataset.from_tensors(batch).repeat(count)


def keras_batch(labels=ONE_HOT, images=IMAGES, **more):
    """A batch in the form that the other layers take."""
    return {"images": images, "labels": labels, **more}


def attempt(function, *args):
    """The result of `function(*args)`, or the exception that it raises."""
    try:
        return function(*args)
    except Exception as error:
        return error


def show(outcome):
    """One outcome as text: the name of an exception, the shape of an array, or the text itself."""
    if isinstance(outcome, Exception):
        return type(outcome).__name__
    return f"shape {outcome.shape}" if isinstance(outcome, np.ndarray) else str(outcome)


def show_all(outcomes):
    """Outcomes by name as text; once, if they are all the same."""
    texts = {name: show(outcome) for name, outcome in outcomes.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"{name}: {text}" for name, text in texts.items())


def numbers(values):
    """The first four numbers of an array as text."""
    return ", ".join(f"{value:.2f}" for value in np.ravel(values)[:4])


# The rows. Each returns (what the peer does, what kmix does, whether kmix keeps the contract; None means not yet).


def integer_labels():
    """Class ids become one-hot labels or raise a ValueError; they never become 2.64."""
    ids = IDS[:, None]
    peer = attempt(lambda: "class ids " + numbers(tf_data(keras.layers.MixUp(1.0, seed=1), keras_batch(ids))["labels"]))
    refused = attempt(tf_data, kmix.MixUp(1.0, seed=1), IMAGES, ids)
    _, encoded = tf_data(kmix.MixUp(1.0, num_classes=B, seed=1), IMAGES, ids)
    _, expected = tf_data(kmix.MixUp(1.0, seed=1), IMAGES, ONE_HOT)
    same = np.array_equal(encoded, expected)
    cell = f"{show(refused)}; with num_classes as one-hot labels: {same}"
    return show(peer), cell, isinstance(refused, ValueError) and same


def flat_labels():
    """Labels `(B,)` do not broadcast to `(B, B)`."""
    labels = IDS.astype("float32")
    ways = {"eager": eager, "tf.data": tf_data}
    peer = {
        name: attempt(lambda run: run(keras.layers.MixUp(), keras_batch(labels))["labels"], ways[name]) for name in ways
    }
    ours = {name: run(kmix.MixUp(), IMAGES, labels)[1] for name, run in ways.items()}
    return show_all(peer), show_all(ours), all(mixed.shape == labels.shape for mixed in ours.values())


def map_on_tuples():
    """`ds.map(layer)` works on a data set of `(x, y)`."""
    peer = attempt(tf_data, keras.layers.MixUp(), IMAGES, ONE_HOT)
    x, y = tf_data(kmix.MixUp(), IMAGES, ONE_HOT)
    ok = x.shape == IMAGES.shape and y.shape == ONE_HOT.shape
    return show(peer), f"x {show(x)}, y {show(y)}", ok


def alpha_zero():
    """Alpha 0, the end of a decay, is the identity."""
    peer = attempt(lambda: "lam " + numbers(np.diag(eager(keras.layers.MixUp(0.0, seed=1), keras_batch())["labels"])))
    x, y = eager(kmix.MixUp(0.0), IMAGES, ONE_HOT)
    ok = np.array_equal(x, IMAGES) and np.array_equal(y, ONE_HOT)
    return show(peer), f"lam {numbers(np.diag(y))}; same batch: {ok}", ok


def small_alpha():
    """A small alpha draws from the Beta distribution that it stands for."""
    alpha, images, labels = 0.01, np.zeros((1000, 1, 1, 1), "float32"), np.eye(1000, dtype="float32")

    def shares(mix):
        lam = np.concatenate([np.diag(mix()) for _ in range(20)])
        return (lam == 0.5).mean(), middle(lam)

    def middle(lam):
        return ((lam > 0.4) & (lam < 0.6)).mean()

    def text(exact, near):
        return f"{exact:.1%} of lam exactly 0.5, {near:.1%} in 0.4..0.6"

    peer, layer = keras.layers.MixUp(alpha, seed=1), kmix.MixUp(alpha, seed=1)
    theirs = attempt(lambda: text(*shares(lambda: eager(peer, keras_batch(labels, images))["labels"])))
    exact, near = shares(lambda: eager(layer, images, labels)[1])
    true = middle(np.random.default_rng(0).beta(alpha, alpha, 1_000_000))
    return show(theirs), f"{text(exact, near)} (NumPy: {true:.1%})", exact < 1e-3 and abs(near - true) < 2e-3


def segmentation_masks():
    """A paste keeps shape and classes of a mask; a blend returns shares of the classes, and refuses float ids."""
    masks, cases = np.random.default_rng(1).integers(0, 5, (B, 16, 16, 1)), ("int32", "float32")

    def outcomes(layers):
        def mixed(layer, dtype):
            return eager(layer, keras_batch(segmentation_masks=masks.astype(dtype)))["segmentation_masks"]

        return {f"{type(layer).__name__}, {dtype}": attempt(mixed, layer, dtype) for layer in layers for dtype in cases}

    ours = outcomes([kmix.MixUp(target={"segmentation_masks": kmix.targets.SegmentationMasks(5)}), kmix.CutMix()])
    pasted = [ours[f"CutMix, {dtype}"] for dtype in cases]
    blended, refused = (ours[f"MixUp, {dtype}"] for dtype in cases)
    ok = all(np.shape(m) == masks.shape and np.isin(m, masks).all() for m in pasted)
    ok = ok and np.shape(blended) == (*masks.shape[:3], 5) and np.allclose(blended.sum(axis=-1), 1)
    peers = outcomes([getattr(keras.layers, name)() for name in NAMES])
    return show_all(peers), show_all(ours), ok and isinstance(refused, ValueError)


def bounding_boxes():
    """Boxes and their labels stay together."""
    boxes = {"boxes": np.ones((B, 3, 4), "float32"), "labels": np.ones((B, 3), "float32")}

    def shapes(layer):
        mixed = eager(layer, keras_batch(bounding_boxes=boxes))["bounding_boxes"]
        return {"boxes": mixed["boxes"].shape, "labels": mixed["labels"].shape}

    def outcomes(library, **settings):
        return {name: attempt(lambda n: shapes(getattr(library, n)(**settings)), name) for name in NAMES}

    ours = outcomes(kmix, target={"bounding_boxes": kmix.targets.BoundingBoxes("xyxy")})
    ok = all(isinstance(pair, dict) and pair["boxes"] == (*pair["labels"], 4) for pair in ours.values())
    return show_all(outcomes(keras.layers, bounding_box_format="xyxy")), show_all(ours), ok


def cutmix_labels():
    """The label weight of CutMix is the share of kept pixels."""
    labels = np.eye(64, dtype="float32")

    def error(mix, size):
        # Image i is painted with its own one-hot label, so the mean of a mixed image is its true label.
        painted = np.broadcast_to(labels[:, None, None], (64, size, size, 64))
        mixed = [mix(painted) for _ in range(5)]
        return max(np.abs(x.mean(axis=(1, 2)) - y).max() for x, y in mixed)

    def theirs(images):
        mixed = eager(peer, keras_batch(labels, images))
        return mixed["images"], mixed["labels"]

    def text(errors):
        return "off by up to " + ", ".join(f"{error:.2g} at {size}x{size}" for size, error in errors.items())

    peer, layer = keras.layers.CutMix(seed=1), kmix.CutMix(num_classes=64, seed=1)
    measured = attempt(lambda: text({size: error(theirs, size) for size in (16, 8)}))
    ours = {size: error(lambda images: eager(layer, images, labels), size) for size in (16, 8)}
    return show(measured), text(ours), max(ours.values()) < 1e-6


def reproducible():
    """One seed gives the same bytes with parallel calls, and no two batches share a plan."""
    count, small, parallel = 1000, IMAGES[:, :2, :2], {"num_parallel_calls": 8}

    def theirs():
        dataset = repeated(keras_batch(images=small), count).map(keras.layers.MixUp(1.0, seed=1), **parallel)
        return np.stack([batch["labels"] for batch in dataset.as_numpy_iterator()])

    def ours():
        dataset = repeated((small, ONE_HOT), count).enumerate().map(kmix.MixUp(1.0, seed=1).at_step, **parallel)
        return np.stack([y for _, y in dataset.as_numpy_iterator()])

    def compare_runs(run):
        first, second = run(), run()
        return (first != second).any(axis=-1).mean(), count - len(np.unique(first, axis=0))

    def text(differ, twins):
        return f"{differ:.0%} of rows differ in a second run, {twins} of {count} plans drawn twice"

    differ, twins = compare_runs(ours)
    return show(attempt(lambda: text(*compare_runs(theirs)))), text(differ, twins), differ == 0 and twins == 0


def compiled_by_xla():
    """The layers compile with `tf.function(jit_compile=True)`, and draw the same there."""
    x, y = tf.constant(IMAGES), tf.constant(ONE_HOT)

    def theirs(name):
        return tf.function(getattr(keras.layers, name)(), jit_compile=True)(keras_batch(y, x))["labels"].numpy()

    def ours(name):
        compiled, plain = (getattr(kmix, name)(seed=1) for _ in range(2))
        _, mixed = tf.function(compiled, jit_compile=True)(x, y)
        _, expected = plain.at_step(0, (IMAGES, ONE_HOT))
        return f"compiles; same labels as NumPy: {np.allclose(mixed, expected, atol=1e-4)}"

    peer, cells = ({name: attempt(run, name) for name in NAMES} for run in (theirs, ours))
    return show_all(peer), show_all(cells), all("True" in str(cell) for cell in cells.values())


def plain_layer_of_a_model():
    """As a layer of a plain model, a mixing layer cannot reach the labels, and must say so."""

    def fit(layer):
        # The model copies its input, and the target is the input: any loss comes from mixing x but not y.
        model = keras.Sequential([layer, keras.layers.Dense(3, kernel_initializer="identity")])
        model.compile(keras.optimizers.SGD(0.0), "mae")
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            loss = model.fit(IMAGES, IMAGES, batch_size=B, verbose=0).history["loss"][0]
        warned = any("label" in str(warning.message) for warning in caught)
        return f"trains; x off y by {loss:.2f}; a warning about labels: {warned}"

    peer, ours = attempt(fit, keras.layers.MixUp(1.0)), attempt(fit, kmix.MixUp(1.0))
    return show(peer), show(ours), isinstance(ours, ValueError)


def alpha_after_tracing():
    """`layer.alpha = v` takes effect in a data pipeline that has been traced."""

    def partner_shares(layer, batch):
        dataset = repeated(batch, 50).map(layer)
        before = partner_share(dataset)
        layer.alpha = 1000.0
        return before, partner_share(dataset)

    def partner_share(dataset):
        batches = list(dataset.as_numpy_iterator())
        labels = [batch["labels"] if isinstance(batch, dict) else batch[1] for batch in batches]
        return 1.0 - np.max(labels, axis=-1).mean()

    def text(before, after):
        return f"mean share of the partner {before:.2f}, after `alpha = 1000` {after:.2f}"

    peer = attempt(lambda: text(*partner_shares(keras.layers.MixUp(1.0, seed=1), keras_batch())))
    before, after = partner_shares(kmix.MixUp(1.0, seed=1), (IMAGES, ONE_HOT))
    # Half of each partner, except for the 1 in B that is its own.
    return show(peer), text(before, after), before < 0.3 and abs(after - 0.5 * (1 - 1 / B)) < 0.05


def half_precision():
    """Under `mixed_float16` labels are float32, finite and sum to one."""
    images, labels = np.zeros((16, 8, 8, 3), "float32"), np.eye(16, dtype="float32")

    def mixed_labels(layer, how, *batch):
        run = {"eager": eager, "tf.data": tf_data}[how]
        mixed = [run(layer, *batch) for _ in range(100 if how == "eager" else 1)]
        return np.stack([result["labels"] if isinstance(result, dict) else result[1] for result in mixed])

    def outcomes(library, *batch):
        cases = [(name, how) for name in NAMES for how in ("eager", "tf.data")]
        layers = {name: getattr(library, name)(seed=1, dtype="mixed_float16") for name in NAMES}
        return {f"{name}, {how}": attempt(mixed_labels, layers[name], how, *batch) for name, how in cases}

    def cells(outcomes):
        return show_all({case: o if isinstance(o, Exception) else text(o) for case, o in outcomes.items()})

    def text(mixed):
        return f"labels {mixed.dtype}, {(~np.isfinite(mixed)).any(axis=-1).mean():.1%} of them not finite"

    def is_right(mixed):
        return not isinstance(mixed, Exception) and mixed.dtype == "float32" and np.allclose(mixed.sum(axis=-1), 1.0)

    peer, ours = outcomes(keras.layers, keras_batch(labels, images)), outcomes(kmix, images, labels)
    return cells(peer), cells(ours), all(map(is_right, ours.values()))


def inference_advances_nothing():
    """A call with `training=False` does not change the next draw."""

    def draw(library, name, batch, calls):
        layer = getattr(library, name)(seed=1)
        for _ in range(calls):
            eager(layer, *batch, training=False)
        return keras.tree.flatten(eager(layer, *batch))

    def next_draw(library, name, batch):
        untouched, after = (draw(library, name, batch, calls) for calls in (0, 1))
        return "same draw" if all(map(np.array_equal, untouched, after)) else "another draw"

    peer = {name: attempt(next_draw, keras.layers, name, [keras_batch()]) for name in NAMES}
    ours = {name: next_draw(kmix, name, [IMAGES, ONE_HOT]) for name in NAMES}
    return show_all(peer), show_all(ours), set(ours.values()) == {"same draw"}


def sample_weights():
    """Weights are mixed so that a loss that is linear in the labels is the weighted pair of losses."""
    weights = np.arange(1, B + 1, dtype="float32")
    losses = np.random.default_rng(2).random((B, B))  # for each prediction and class
    peer = attempt(lambda: eager(keras.layers.MixUp(1.0), keras_batch(sample_weight=weights))["sample_weight"])
    layer = kmix.MixUp(1.0, seed=1)
    plan = layer.plan(step=0, batch_size=B)
    lam, partner = plan.lam, plan.permutation
    _, y, mixed = eager(layer, IMAGES, ONE_HOT, weights)
    pair = lam * weights * losses[IDS, IDS] + (1 - lam) * weights[partner] * losses[IDS, partner]
    off = np.abs(mixed * (y * losses).sum(axis=1) - pair).max()
    theirs = f"mixed: {not np.array_equal(peer, weights)}" if isinstance(peer, np.ndarray) else show(peer)
    ours = f"mixed: {not np.array_equal(mixed, weights)}; loss off the weighted pair by {off:.1g}"
    return theirs, ours, off < 1e-5


ROWS = {
    "integer labels, tf.data": integer_labels,
    "labels `(B,)`": flat_labels,
    "`ds.map(layer)` on `(x, y)`": map_on_tuples,
    "alpha = 0, eager": alpha_zero,
    "alpha = 0.01, eager": small_alpha,
    "segmentation masks, eager": segmentation_masks,
    "bounding boxes, eager": bounding_boxes,
    "CutMix labels against kept pixels": cutmix_labels,
    "same seed, `num_parallel_calls=8`": reproducible,
    "`tf.function(jit_compile=True)`": compiled_by_xla,
    "`Sequential([MixUp(), ...]).fit(x, y)`": plain_layer_of_a_model,
    "`layer.alpha = v` after tracing, tf.data": alpha_after_tracing,
    "`mixed_float16`": half_precision,
    "`training=False`, eager": inference_advances_nothing,
    "sample weights, eager": sample_weights,
}


def compare(save=False):
    """Print the table for this backend, and save it to `RESULTS.md`. Returns whether kmix keeps every contract."""
    backend, rows, held = keras.backend.backend(), [], True
    for title, row in ROWS.items():
        try:
            peer, ours, ok = row()
        except Exception as error:  # A peer may fail inside a row; here it was kmix, which must not.
            peer, ours, ok = "not reached", f"{type(error).__name__}: {error}".splitlines()[0], False
        rows.append([title, peer, ours, "yes" if ok else "NO"])
        held = held and ok
    table = results.table(["contract", "keras.layers", "kmix", "kmix keeps it"], rows)
    print(f"\nBackend {backend}, Keras {keras.__version__}, kmix {kmix.__version__}\n\n{table}")
    if save:
        head = f"## Contracts, {backend}\n\n{results.command(backend)}\n\n{results.machine('keras', backend, 'numpy')}"
        results.write_section(f"compare_{backend}", f"{head}\n\n{table}")
    return held


def compare_all_backends():
    """Run this script once for each backend that is installed. Returns whether kmix keeps every contract."""
    backends = [name for name in ("tensorflow", "jax", "torch") if importlib.util.find_spec(name)]
    runs = [subprocess.run([sys.executable, __file__], env={**os.environ, "KERAS_BACKEND": name}) for name in backends]
    return all(run.returncode == 0 for run in runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--all-backends", action="store_true", help="one table for each installed backend")
    parser.add_argument("--save", action="store_true", help="write the table to RESULTS.md")
    arguments = parser.parse_args()
    sys.exit(0 if (compare_all_backends() if arguments.all_backends else compare(arguments.save)) else 1)
