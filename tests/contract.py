"""What every mixer must keep, built in or from outside: `check_mixer(layer, batch)` for a batch of NumPy arrays.

Each promise is a function of its own, so that a test can show that it fails for a mixer that breaks the promise.
"""

import copy
import json
import os
import pickle

import keras
import numpy as np
import pytest
from helpers import CODE_PATHS, at_step, call, to_native, to_numpy
from oracle import cutmix, mixup, one_hot, pair_share, weighted

import kmix
from kmix.targets.argument import to_target
from kmix.targets.base import Function

tree = keras.tree
STEP = 3
# Programs of tf.data are alike on every backend, and slow to trace.
ALL = keras.backend.backend() == "tensorflow" or "KMIX_TEST_EVERYWHERE" in os.environ
PATHS = CODE_PATHS if ALL else ("numpy", "native")
PLAIN = {"num_classes": None, "target": None, "include_clean": False, "pairing": "random"}


def check_mixer(layer, batch, formulas=None):
    """Assert that a layer keeps all promises for a batch that it takes.

    Args:
        layer: A mixing layer, whose alpha is a number, and which mixes something in step 3.
        batch: `(x, y)`, `(x, y, sample_weight)` or a dictionary, NumPy arrays.
        formulas: For targets from outside kmix, by class, a function `(y, plan) -> y` of NumPy arrays.
    """
    for promise in PROMISES:
        promise(layer, batch)
    check_values(layer, batch, formulas)


# Batches and layers.


def parts(batch):
    """`(x, y, sample_weight)` of a batch in any form."""
    if isinstance(batch, dict):
        return batch["images"], batch["labels"], batch.get("sample_weight")
    return (*batch, None)[:3]


def with_labels(batch, y):
    """The inputs of the batch with other labels."""
    return {"images": batch["images"], "labels": y} if isinstance(batch, dict) else (batch[0], y)


def target_of(layer, batch):
    """What the labels of the batch are: an object of `kmix.targets`, or a structure of these."""
    target = to_target(layer.target)
    if isinstance(batch, dict) and isinstance(target, dict):
        target = target.get("labels")
    return kmix.targets.Labels(layer.num_classes) if target is None else target


def rebuilt(layer, **settings):
    """The layer with other arguments, as a new layer that has counted nothing; for a choice those of its layers."""
    if isinstance(layer, kmix.RandomChoice):
        layers = [rebuilt(inner, **settings) for inner in layer.layers]
        compiled = settings.get("jit_compile", layer.jit_compile)
        return type(layer)(layers, layer.probabilities, jit_compile=compiled, seed=layer.seed, name=layer.name)
    return type(layer).from_config({**layer.get_config(), **settings})


def drawing_layers(layer):
    """The layers that have an alpha: the layer, or for a choice its layers."""
    if isinstance(layer, kmix.RandomChoice):
        return [inner for branch in layer.layers for inner in drawing_layers(branch)]
    return [layer] if hasattr(layer, "alpha") else []


def mixed_by(layer, batch, step=STEP):
    """The mixed batch on the code path of NumPy."""
    return at_step("numpy", layer, step, batch)


def plan_of(layer, batch, step=STEP):
    x, y, _ = parts(batch)
    return layer.plan(step, len(tree.flatten(x)[0]), spatial_shape=layer.input_mixing.spatial_shape(x), targets=y)


def assert_same(ours, expected, message=""):
    """The same structure, dtypes and bits."""
    tree.assert_same_structure(ours, expected)
    for one, other in zip(tree.flatten(ours), tree.flatten(expected), strict=True):
        if other is not None:
            assert str(one.dtype) == str(other.dtype), message
            np.testing.assert_array_equal(one, other, err_msg=message)


def assert_alike(ours, expected, message=""):
    """The same structure, dtypes and shapes, and the same values within the rounding of the frameworks."""
    tree.assert_same_structure(ours, expected)
    for one, other in zip(tree.flatten(ours), tree.flatten(expected), strict=True):
        if other is not None:
            assert str(one.dtype) == str(other.dtype), f"{message}: {one.dtype}, not {other.dtype}"
            one, other, tolerance = one.astype("float64"), other.astype("float64"), rounding(one)
            scale = max(1.0, np.abs(other[np.isfinite(other)]).max(initial=0))
            np.testing.assert_allclose(one, other, atol=tolerance * scale, rtol=0, err_msg=message)


def rounding(array):
    """How much an array may differ from the same on another framework, beside its largest value."""
    return 1e-2 if "float16" in str(array.dtype) else 1e-4


# Promises.


def check_code_paths(layer, batch):
    """NumPy, native tensors and tf.data, by step and by call, mix alike."""
    expected = {step: mixed_by(layer, batch, step) for step in (0, STEP)}
    for path in PATHS:
        assert_alike(at_step(path, layer, STEP, batch), expected[STEP], f"at_step on the code path {path}")
        assert_alike(call(path, rebuilt(layer), batch), expected[0], f"call on the code path {path}")


def check_config(layer, batch):
    """The config goes through JSON, and the layer that is built from it mixes alike."""
    expected = mixed_by(layer, batch)
    config = json.loads(json.dumps(layer.get_config()))
    assert_same(mixed_by(type(layer).from_config(config), batch), expected, "from_config")
    serialized = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    scope = {type(layer).__name__: type(layer)}
    loaded = keras.saving.deserialize_keras_object(serialized, custom_objects=scope)
    assert_same(mixed_by(loaded, batch), expected, "keras.saving")
    assert json.loads(json.dumps(loaded.get_config())) == config
    assert loaded.name == layer.name
    assert loaded.dtype_policy.name == layer.dtype_policy.name


def check_copies(layer, batch):
    """A deep copy and an unpickled layer mix alike, and go on counting where the layer was."""
    expected = mixed_by(layer, batch)
    original = rebuilt(layer)
    call("numpy", original, batch)
    for duplicate in (copy.deepcopy(original), pickle.loads(pickle.dumps(original))):
        assert_same(mixed_by(duplicate, batch), expected, "a copy")
        assert_same(call("numpy", duplicate, batch), mixed_by(layer, batch, 1), "the count of a copy")


def check_spec(layer, batch):
    """The symbolic output has the shapes and dtypes of the real one, with a batch size that is not known, too."""
    real = layer.at_step(STEP, to_native(batch))
    for known in (True, False):

        def symbol(leaf, known=known):
            shape = leaf.shape if known else (None, *leaf.shape[1:])
            return keras.KerasTensor(shape, dtype=keras.backend.standardize_dtype(leaf.dtype))

        symbols = tree.map_structure(lambda leaf: None if leaf is None else symbol(leaf), to_native(batch))
        if isinstance(batch, dict):
            # Inside a model, labels are a second argument.
            with pytest.raises(ValueError, match="second argument"):
                layer(symbols)
            return
        spec = layer(*symbols)
        tree.assert_same_structure(spec, real)
        for one, other in zip(tree.flatten(spec), tree.flatten(real), strict=True):
            if other is not None:
                size = other.shape[:1] if known else (None,)
                assert tuple(one.shape) == (*size, *other.shape[1:]), f"{one.shape} for {other.shape}"
                assert one.dtype == keras.backend.standardize_dtype(other.dtype)
                assert all(one is not given for given in tree.flatten(symbols)), "Keras needs a new tensor"


def check_dtypes(layer, batch):
    """Labels and weights are float32 under every policy; inputs follow the rule of the mixer."""
    x, y, _ = parts(batch)

    def labels(target, given, mixed):
        if isinstance(target, (dict, list)):
            for key in target if isinstance(target, dict) else range(len(target)):
                labels(target[key], given[key], mixed[key])
        elif isinstance(target, (kmix.targets.Labels, kmix.targets.LabelPairs, kmix.targets.LabelUnion)):
            assert {str(leaf.dtype) for leaf in tree.flatten(mixed)} == {"float32"}
        elif isinstance(target, kmix.targets.Keep):
            assert [leaf.dtype for leaf in tree.flatten(mixed)] == [leaf.dtype for leaf in tree.flatten(given)]

    def rule(layer, leaf):
        if isinstance(layer, kmix.RandomChoice):
            return keras.backend.result_type(*(rule(inner, leaf) for inner in layer.layers))
        own = str(leaf.dtype)
        return own if isinstance(layer.input_mixing, kmix.layers.Paste) or own == "bool" else layer.compute_dtype

    mixed_x, mixed_y, mixed_weight = parts(mixed_by(layer, batch))
    assert [str(leaf.dtype) for leaf in tree.flatten(mixed_x)] == [rule(layer, leaf) for leaf in tree.flatten(x)]
    labels(target_of(layer, batch), y, mixed_y)
    assert {str(leaf.dtype) for leaf in tree.flatten(mixed_weight) if leaf is not None} <= {"float32"}


def check_inputs_stay(layer, batch):
    """No array of the batch is changed in place."""
    before = copy.deepcopy(batch)
    for given in (batch, to_native(before)):
        layer.at_step(STEP, given)
        fresh = rebuilt(layer)
        fresh(given) if isinstance(given, dict) else fresh(*given)
        assert_same(to_numpy(given), to_numpy(to_native(before)) if given is not batch else before, "in place")


def check_off(layer, batch):
    """Without a chance to mix, and with alpha 0, a layer is exactly the identity; with one it is not."""
    off = {"rate=0": rebuilt(layer, rate=0.0)}
    if drawing_layers(layer):
        off["alpha 0"] = rebuilt(layer)
        for drawing in drawing_layers(off["alpha 0"]):
            drawing.alpha = 0.0
    x = parts(batch)[0]
    for reason, identity in off.items():
        plan = plan_of(identity, batch)
        np.testing.assert_array_equal(plan.lam, 1.0, err_msg=f"{reason}: lam")
        expected = unmixed(identity, batch)
        for path in ("numpy", "native"):
            mixed = at_step(path, identity, STEP, batch)
            mixed_x, mixed_y, mixed_weight = parts(mixed)
            for ours, given in zip(tree.flatten(mixed_x), tree.flatten(x), strict=True):
                np.testing.assert_array_equal(ours, np.asarray(given).astype(ours.dtype), err_msg=reason)
            assert_same(mixed_y, expected[1], f"{reason}: labels on the code path {path}")
            assert_alike(mixed_weight, expected[2], f"{reason}: weights")
    changed = parts(mixed_by(layer, batch))[0]
    assert any(
        not np.array_equal(ours, np.asarray(given).astype(ours.dtype))
        for ours, given in zip(tree.flatten(changed), tree.flatten(x), strict=True)
    ), "the layer mixes nothing in the step that is tested"


def unmixed(layer, batch):
    """The encoded batch: its samples one by one, so that none has a partner."""
    n = len(tree.flatten(parts(batch)[0])[0])
    samples = [tree.map_structure(lambda leaf, i=i: None if leaf is None else leaf[i : i + 1], batch) for i in range(n)]
    encoded = [parts(mixed_by(layer, sample)) for sample in samples]
    return tree.map_structure(lambda *leaves: None if leaves[0] is None else np.concatenate(leaves), *encoded)


def check_settings(layer, batch):
    """`per="batch"` draws one lam for all samples, and `lam_at_least_half` none below a half."""
    for setting, value in (("per", "batch"), ("lam_at_least_half", True)):
        # A choice leaves them to its layers.
        if isinstance(layer, kmix.RandomChoice) or setting not in layer.get_config():
            continue
        try:
            other = rebuilt(layer, **PLAIN, **{setting: value})
        except ValueError:
            # A mixer may refuse it: with ratios, the shares of AudioMix follow from these.
            continue
        for step in range(8):
            plan = plan_of(other, batch, step)
            lam = plan.lam[plan.permutation != np.arange(len(plan.lam))]
            if setting == "per":
                assert np.allclose(lam, lam[:1], atol=1e-6), f"per='batch' draws {lam}"
            else:
                assert (lam >= 0.5 - 1e-6).all(), f"lam_at_least_half draws {lam}"


def check_stream(layer, batch):
    """A mixer draws other numbers than a `MixUp` with its seed."""
    if isinstance(layer, (kmix.MixUp, kmix.RandomChoice)):
        return
    own = rebuilt(layer, **PLAIN)
    plans = [plan_of(own, batch, step) for step in range(8)]
    others = [kmix.MixUp(1.0, seed=own.seed).plan(step, len(plan.lam)) for step, plan in enumerate(plans)]
    pairs = zip(plans, others, strict=True)
    assert not all(np.array_equal(plan.permutation, other.permutation) for plan, other in pairs), "the stream of MixUp"


def check_training(layer, batch):
    """`training=False` returns the batch as it is, on every framework, and counts nothing."""
    fresh = rebuilt(layer)
    for given in (batch, to_native(batch)):
        result = fresh(given, training=False) if isinstance(given, dict) else fresh(*given, training=False)
        assert_same(to_numpy(result), to_numpy(given), "training=False")
    assert_same(call("numpy", fresh, batch), mixed_by(layer, batch, 0), "training=False was counted")


def check_counter(layer, batch):
    """Calls mix with the steps 0, 1, 2, on whatever code path they come, and the steps differ."""
    fresh = rebuilt(layer)
    expected = [mixed_by(layer, batch, step) for step in range(3)]
    for path, mixed in zip(("numpy", "native", "numpy"), expected, strict=True):
        assert_alike(call(path, fresh, batch), mixed, "the count of the calls")
    plans = [plan_of(layer, batch, step) for step in range(3)]
    drawn = {(*plan.lam.tolist(), *plan.permutation.tolist()) for plan in plans}
    assert len(drawn) > 1, "every step has the same plan"


@keras.saving.register_keras_serializable(package="contract")
class Counted(kmix.targets.Target):
    """Counts how often it was mixed: `y + 1`."""

    max_partners = None

    def mix(self, xp, y, weight, plan, info):
        return y + 1, weight


def check_once(layer, batch):
    """Every array of the labels is mixed exactly once, on every code path."""
    n = len(tree.flatten(parts(batch)[0])[0])
    y = {"a": np.zeros(n, "float32"), "b": (np.full((n, 2), 5, "int32"),)}
    counting = rebuilt(layer, **{**PLAIN, "target": Counted()})
    for path in PATHS:
        mixed = parts(at_step(path, counting, STEP, with_labels(batch, y)))[1]
        assert_same(mixed, tree.map_structure(lambda leaf: leaf + 1, y), f"the code path {path}")


def check_shares(layer, batch):
    """Inputs painted with the number of their sample show each partner with the share that the plan names."""
    x = parts(batch)[0]
    leaves = [leaf for leaf in tree.flatten(x) if leaf.ndim > 1 and leaf.dtype != "bool"]
    layer = rebuilt(layer, **PLAIN)
    plan = plan_of(layer, batch)
    n = len(plan.lam)
    expected = mixup(np.eye(n), plan.lam, plan.permutation)
    for leaf in leaves:
        first = any(getattr(inner, "data_format", "") == "channels_first" for inner in drawing_layers(layer))
        middle = leaf.shape[2:] if first else leaf.shape[1:-1]
        ones, axes = (1,) * len(middle), tuple(range(2, leaf.ndim) if first else range(1, leaf.ndim - 1))
        eye = np.eye(n).reshape((n, n, *ones) if first else (n, *ones, n))
        painted = np.tile(eye, (1, 1, *middle) if first else (1, *middle, 1)).astype(leaf.dtype)
        mixed = mixed_by(layer, (painted, np.zeros((n, 2), "float32")))[0]
        np.testing.assert_allclose(mixed.astype("float64").mean(axis=axes), expected, atol=rounding(mixed))


def cut(structure, rows):
    return tree.map_structure(lambda leaf: None if leaf is None else leaf[rows], structure)


def check_clean(layer, batch):
    """With `include_clean`, the clean samples come before the mixed ones, in the same form."""
    doubling, n = rebuilt(layer, include_clean=True), len(tree.flatten(parts(batch)[0])[0])
    mixed, clean = mixed_by(layer, batch), unmixed(rebuilt(layer, rate=0.0), batch)
    for path in ("numpy", "native"):
        both = at_step(path, doubling, STEP, batch)
        first, second = (cut(both, rows) for rows in (slice(n), slice(n, None)))
        assert_alike(second, mixed, f"mixed samples on the code path {path}")
        assert_alike(parts(first), clean, f"clean samples on the code path {path}")
    check_spec(doubling, batch)


def check_second_batch(layer, batch):
    """Partners from a second batch are mixed by the same plan: a batch is its own second batch.

    But for samples that are their own partners, which are not mixed: in a second batch there are none.
    """
    unpaired = rebuilt(layer, pairing="random")
    permutation = plan_of(unpaired, batch).permutation
    rows = np.flatnonzero(permutation != np.arange(len(permutation)))
    expected = cut(mixed_by(unpaired, batch), rows)
    assert_alike(cut(unpaired.at_step(STEP, batch, partner=batch), rows), expected, "NumPy")
    native = to_native(batch)
    mixed = to_numpy(unpaired.at_step(STEP, native, partner=native))
    assert_alike(cut(mixed, rows), expected, "native tensors")


def check_groups(layer, batch):
    """With partners within groups of rows, the parts of a batch are mixed as the whole is."""
    grouped = rebuilt(layer, pairing=kmix.pairing.RandomPairs(within=2))
    n = len(tree.flatten(parts(batch)[0])[0])
    sections = [(first, slice(first, min(first + 2, n))) for first in range(0, n, 2)]
    for path in ("numpy", "native"):
        given = to_native(batch) if path == "native" else batch
        whole = to_numpy(grouped.at_step(STEP, given))
        for first, rows in sections:
            part = to_numpy(grouped.at_step(STEP, cut(given, rows), first_row=first))
            assert_alike(part, cut(whole, rows), f"the rows from {first} on, on the code path {path}")


PROMISES = (
    check_code_paths,
    check_config,
    check_copies,
    check_spec,
    check_dtypes,
    check_inputs_stay,
    check_off,
    check_settings,
    check_stream,
    check_training,
    check_counter,
    check_once,
    check_clean,
    check_second_batch,
    check_groups,
)


def check_values(layer, batch, formulas=None):
    """Inputs, labels and weights are those that the formulas of the papers give for the plan of the step."""
    x, y, weight = parts(batch)
    mixed_x, mixed_y, mixed_weight = parts(mixed_by(layer, batch))
    plan, target = plan_of(layer, batch), target_of(layer, batch)
    weight = weigh(target, y, weight)
    for ours, given in zip(tree.flatten(mixed_x), tree.flatten(x), strict=True):
        expected = input_by_hand(layer, given, plan)
        if expected is not None:
            scale = max(1.0, np.abs(expected).max())
            np.testing.assert_allclose(ours.astype("float64"), expected, atol=rounding(ours) * scale)
    check_shares(layer, batch)
    flat = tree.flatten(weight)
    weights = weight if isinstance(weight, dict) else None
    for path, leaf, kind in leaves_of(y, target):
        w = weights.get(path[0]) if weights is not None else flat[0]
        expected = label_by_hand(leaf, kind, w, plan, formulas or {})
        np.testing.assert_allclose(at_path(mixed_y, path), expected, atol=1e-4, err_msg=f"labels {path}")
    for ours, given in zip(tree.flatten(mixed_weight), flat, strict=True):
        if given is not None:
            expected = mixup(given, plan.lam, plan.permutation)
            np.testing.assert_allclose(ours, expected, atol=1e-4, err_msg="weights")


def weigh(target, y, weight):
    """The sample weights times those of the classes."""
    by_class = getattr(target, "class_weight", None)
    if by_class is None:
        return weight
    factor = np.array([by_class.get(int(number), 1.0) for number in np.reshape(y, -1)])
    return factor if weight is None else factor * weight


def input_by_hand(layer, x, plan):
    """An array of the inputs, mixed by the formulas; None where a region from outside kmix is pasted."""
    if plan.region is not None:
        return None
    if plan.box is not None:
        first = next(inner.data_format for inner in drawing_layers(layer) if hasattr(inner, "data_format"))
        return cutmix(x, plan.box, plan.permutation, first).astype("float64")
    if x.dtype == "bool":
        return x | (x[plan.permutation] & (plan.lam < 1).reshape((-1,) + (1,) * (x.ndim - 1)))
    return mixup(x, plan.lam, plan.permutation)


def label_by_hand(y, target, weight, plan, formulas):
    """An array of the labels, mixed by the formulas."""
    lam, permutation = plan.lam, plan.permutation
    if isinstance(target, Function):
        return target.function(y, plan)
    if type(target) in formulas:
        return formulas[type(target)](y, plan)
    if isinstance(target, kmix.targets.Keep):
        return y
    if isinstance(target, kmix.targets.LabelUnion):
        share = lam.reshape((-1,) + (1,) * (y.ndim - 1))
        partner = y[permutation]
        return np.where(share == 1, y, np.where(share == 0, partner, np.maximum(y, partner)))
    if isinstance(target, kmix.targets.LabelPairs):
        ids = y.reshape(-1)
        share = np.where(lam == 1, 1.0, lam if weight is None else pair_share(lam, permutation, weight))
        return np.stack([ids, np.where(lam == 1, ids, ids[permutation]), share], axis=1)
    name = type(target).__name__
    assert isinstance(target, kmix.targets.Labels), f"give the formula of {name}: `formulas={{{name}: ...}}`"
    if "int" in str(y.dtype) and (y.ndim == 1 or y.shape[1] == 1):
        y = one_hot(y, target.num_classes)
    return mixup(y, lam, permutation) if weight is None else weighted(y, weight, lam, permutation)[0]


def leaves_of(y, target, path=()):
    """`(path, array, target)` for each array of the labels."""
    if not isinstance(y, (dict, list, tuple)):
        yield path, y, target
        return
    for key in y if isinstance(y, dict) else range(len(y)):
        yield from leaves_of(y[key], target[key] if isinstance(target, (dict, list)) else target, (*path, key))


def at_path(structure, path):
    for key in path:
        structure = structure[key]
    return structure
