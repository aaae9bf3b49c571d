"""`target=`: its names, one for each leaf, labels that are kept, and functions of the user."""

import numpy as np
import oracle
import pytest
from helpers import (
    BACKEND,
    assert_near,
    at_step,
    boxes,
    call,
    choice,
    cutmix,
    data,
    embedding,
    every_layer,
    every_layer_and_path,
    every_path,
    ids,
    mixed_inputs,
    mixup,
    one_hot,
    plan_of,
    raises,
    refused_by_all,
    tf,
    to_numpy,
    tree,
)
from keras import ops

import kmix
from kmix.targets import Labels

SOFT = data(), one_hot(ids())


NAMES = "labels", "keep", "union"


@every_layer
@pytest.mark.parametrize(
    "target",
    ["mask", "Labels", "", "bounding_boxes", {"a": "labels", "b": "boxes"}, ["keep", "ignore"]],
    ids=repr,
)
def test_an_unknown_name_is_refused(make, target):
    words = ["BoundingBoxes", "format"] if target == "bounding_boxes" else NAMES
    raises(lambda: make(target=target), "target", *words, errors=ValueError)


@every_layer
@pytest.mark.parametrize("target", [3, 0.5, {"a": 1}, Labels, {"a": Labels}, {"a": None}], ids=repr)
def test_another_type_is_refused(make, target):
    raises(lambda: make(target=target), "target", errors=TypeError)


Y = {"a": one_hot(ids()), "b": data(shape=(2,), seed=1)}


@pytest.mark.parametrize(
    ("target", "y"),
    [
        ({"a": "labels", "z": "keep"}, Y),
        ({"a": "labels", "b": "keep", "z": "keep"}, Y),
        (["labels", "keep"], Y),
        ({"a": "labels", "b": "keep"}, tuple(Y.values())),
        (("labels", "keep", "keep"), tuple(Y.values())),
        (("labels",), tuple(Y.values())),
        ({"a": "keep"}, Y["a"]),
        ({"a": {"c": "keep"}, "b": "keep"}, Y),
    ],
    ids=str,
)
def test_another_structure_than_that_of_the_labels_is_refused(target, y):
    refused_by_all({"target": target}, (data(), y), "target", makes=["MixUp", "CutMix"])


@every_layer_and_path
def test_each_leaf_has_its_target(make, path):
    x = data()
    y = {"ids": ids(), "code": ids(9)[:6], "tags": data(shape=(4,), seed=1).round(), "size": data(shape=(1,)) * 9}
    target = {"ids": Labels(3), "code": "keep", "tags": "union", "size": "labels"}
    layer = make(target=target)
    plan = plan_of(layer)
    lam, permutation = plan[:2]
    union = np.maximum(y["tags"], y["tags"][permutation])
    expected = {
        "ids": oracle.mixup(oracle.one_hot(y["ids"], 3), lam, permutation),
        "code": y["code"],
        "tags": np.where(oracle.rows(lam == 1, union), y["tags"], union),
        "size": oracle.mixup(y["size"], lam, permutation),
    }
    ours = at_step(path, layer, 0, (x, y))[1]
    assert_near(ours, expected)
    assert ours["code"].dtype == y["code"].dtype or (BACKEND, path) == ("jax", "native")


@pytest.mark.fast("*numpy", "*native")
@every_path
def test_keep_in_every_form_of_a_batch(path):
    x, y, w = data(), ids(), np.linspace(0.5, 2, 6, dtype="float32")
    for batch in ((x, y), (x, y, w), {"images": x, "labels": y}, {"images": x, "labels": y, "sample_weight": w}):
        labels, weights = (batch["labels"], batch.get("sample_weight")) if isinstance(batch, dict) else (y, w)
        ours = call(path, mixup(target="keep"), batch)
        out = list(ours.values()) if isinstance(ours, dict) else list(ours)
        plan = plan_of(mixup())
        assert len(out) == len(batch)
        np.testing.assert_array_equal(out[1], labels)
        if len(out) == 3:
            assert_near(out[2], oracle.weighted(one_hot(y), weights, *plan[:2])[1])


def test_a_choice_has_the_target_of_its_layers():
    settings = [{"target": "union"}, {}]
    raises(
        lambda: kmix.RandomChoice([mixup(**settings[0]), cutmix(**settings[1])]), "agree", "target", errors=ValueError
    )
    x, y = data(), data(shape=(4,), seed=1).round()
    layer = choice(**settings[0])
    found = set()
    for step in range(4):
        plan = plan_of(layer, step)
        union = np.maximum(y, y[plan.permutation])
        expected = np.where(oracle.rows(plan.lam == 1, y), y, union)
        assert_near(layer.at_step(step, (x, y)), (mixed_inputs(x, plan), expected))
        found.add(plan.box is None)
    assert found == {True, False}


KEPT = {
    "ids": ids(),
    "ids beyond any class": ids() * 1000 - 7,
    "column": ids()[:, None],
    "bytes": ids().astype("uint8"),
    "booleans": ids() > 0,
    "integer grid": ids(48).reshape(6, 4, 2),
    "regression": data(shape=(3,)) * -9,
    "float64": data(shape=(3,)).astype("float64"),
    "float16": data(shape=(3, 5)).astype("float16") * 99,
    "boxes": boxes(),
    "nested": {"a": (ids(), {"b": data(shape=(8, 8, 1))}), "c": (ids() > 1,)},
}


@every_layer_and_path
def test_keep_leaves_labels_as_they_are(make, path):
    x, y = data(), {name: value for name, value in KEPT.items() if path != "native" or name != "float64"}
    layer = make(target="keep")
    ours = at_step(path, layer, 0, (x, y))
    assert_near(ours[0], mixed_inputs(x, plan_of(layer)))
    tree.assert_same_structure(ours[1], y)
    for one, other in zip(tree.flatten(ours[1]), tree.flatten(y), strict=True):
        np.testing.assert_array_equal(one, other)
        # JAX has only 32 bits; no layer sees the others.
        assert one.dtype == other.dtype or ((BACKEND, path) == ("jax", "native") and other.dtype == "int64")


@pytest.mark.in_turn
@pytest.mark.fast("CutMix")
@every_layer
def test_keep_takes_strings_along(make):
    x, names = data(), np.array([f"file{i}.png" for i in range(6)])
    for batch in ((x, names), (x, {"name": names, "label": one_hot(ids())})):
        target = "keep" if batch[1] is names else {"name": "keep", "label": "labels"}
        layer = make(target=target)
        ours = layer.at_step(0, batch)[1]
        np.testing.assert_array_equal(ours if batch[1] is names else ours["name"], names)
        ds = tf.data.Dataset.from_tensors(batch).enumerate().map(layer.at_step)
        mixed = to_numpy(next(iter(ds)))
        np.testing.assert_array_equal(mixed[1] if batch[1] is names else mixed[1]["name"], names.astype("S"))
        assert_near(mixed[0], mixed_inputs(x, plan_of(layer)))


@pytest.mark.fast("*-native")
@every_layer_and_path
def test_keep_mixes_the_weights_of_the_leaf(make, path):
    x, y = data(), {"a": ids(), "b": one_hot(ids())}
    w = {"a": np.linspace(0.5, 2, 6, dtype="float32"), "b": np.linspace(3, 0, 6, dtype="float32")}
    layer = make(target={"a": "keep", "b": "labels"})
    plan = plan_of(layer)
    labels, weights = oracle.weighted(y["b"], w["b"], *plan[:2])
    expected = {"a": oracle.mixup(w["a"], *plan[:2]), "b": weights}
    ours = at_step(path, layer, 0, (x, y, w))
    assert_near(ours[2], expected)
    assert_near(ours[1], {"a": y["a"], "b": labels})
    _, kept, mixed = at_step(path, make(target="keep"), 0, (x, y["a"], w["a"]))
    np.testing.assert_array_equal(kept, y["a"])
    assert_near(mixed, expected["a"])


@every_layer
def test_keep_takes_what_has_no_batch_axis(make):
    """Only to double it, it must have one."""
    x, target = data(), {"label": "labels", "step": "keep", "names": "keep"}
    y = {"label": one_hot(ids()), "step": 7, "names": ["cat", "dog"]}
    ours = make(target=target).at_step(0, (x, y))[1]
    assert (ours["step"], ours["names"]) == (7, ["cat", "dog"])
    raises(lambda: make(target=target, include_clean=True).at_step(0, (x, y)), "step", "batch axis")


def test_keep_of_a_whole_branch():
    x, y = data(), {"kind": ids(), "objects": boxes()}
    layer = mixup(target={"kind": Labels(3), "objects": "keep"})
    plan = plan_of(layer)
    ours = layer.at_step(0, (x, y))[1]
    assert_near(ours["kind"], oracle.mixup(oracle.one_hot(y["kind"], 3), *plan[:2]))
    for name, array in y["objects"].items():
        np.testing.assert_array_equal(ours["objects"][name], array)


def test_union_of_one_column_at_times_and_by_embedding_mixup():
    """`test_union.py` holds the rest."""
    x, tags = data(16), data(16, (5,), seed=1)
    for layer in (mixup(target="union", rate=0.5), embedding(target="union")):
        plan = plan_of(layer, n=16)
        for y in (tags, tags[:, :1], tags.round().astype("int64")):
            expected = np.where(oracle.rows(plan.lam == 1, y), y, np.maximum(y, y[plan.permutation]))
            assert (expected > y).any()
            for path in ("numpy", "native"):
                assert_near(at_step(path, layer, 0, (x, y)), (mixed_inputs(x, plan), expected))


def framework(tensor):
    kind = {np.ndarray: "numpy"}.get(type(tensor))
    return kind or ("tensorflow" if tf.is_tensor(tensor) else BACKEND)


def partner(y, plan):
    """The labels of the partners, by functions of their framework."""
    if tf.is_tensor(y):
        return tf.gather(y, plan.permutation)
    return y[plan.permutation]


@every_layer_and_path
def test_a_function_gets_tensors_of_the_batch_and_the_plan(make, path):
    x, y, received = data(), data(shape=(3,), seed=1) * 9, []

    def mix(y, plan):
        received.append({framework(array) for array in (y, plan.lam, plan.permutation)})
        received[-1] |= set() if plan.box is None else {framework(plan.box)}
        lam = plan.lam[:, None]
        return lam * y - (1 - lam) * partner(y, plan)

    layer = make(target=mix)
    plan = plan_of(layer)
    # A sample that is its own partner is not mixed.
    lam = np.where(plan.permutation == np.arange(6), 1, plan.lam)
    expected = oracle.rows(lam, y) * y - oracle.rows(1 - lam, y) * y[plan.permutation]
    assert_near(at_step(path, layer, 0, (x, y)), (mixed_inputs(x, plan), expected))
    wanted = {"numpy": "numpy", "native": BACKEND, "tfdata": "tensorflow"}[path]
    assert all(found == {wanted} for found in received)
    assert received


@every_path
def test_a_function_gets_the_labels_as_they_came(path):
    """It gets any dtype and shape, and its result comes out unchanged."""
    x, y = data(), ids(24).reshape(6, 2, 2).astype("int32")
    layer = mixup(target=partner)
    ours = at_step(path, layer, 0, (x, y))[1]
    np.testing.assert_array_equal(ours, y[plan_of(layer).permutation])
    assert ours.dtype == "int32"


@every_path
def test_a_function_may_paste_masks_with_the_box(path):
    x, y = data(), data(shape=(8, 8, 1), seed=1).round()

    def paste(y, plan):
        rows, columns = (np.arange(8)[None, :, None], np.arange(8)[None, None, :])
        y0, x0, y1, x1 = (plan.box[:, i][:, None, None] for i in range(4))
        if not isinstance(y, np.ndarray):
            convert = tf.constant if tf.is_tensor(y) else ops.convert_to_tensor
            rows, columns = convert(rows.astype("int32")), convert(columns.astype("int32"))
        inside = ((rows >= y0) & (rows < y1) & (columns >= x0) & (columns < x1))[..., None]
        where = np.where if isinstance(y, np.ndarray) else tf.where if tf.is_tensor(y) else ops.where
        return where(inside, partner(y, plan), y)

    layer = cutmix(target=paste)
    plan = plan_of(layer)
    expected = oracle.cutmix(x, plan.box, plan.permutation), oracle.cutmix(y, plan.box, plan.permutation)
    assert (expected[1] != y).any()
    assert_near(at_step(path, layer, 0, (x, y)), expected, atol=0)


@every_path
def test_a_function_for_one_of_the_leaves_and_weights(path):
    x, y, w = data(), {"a": ids().astype("int32"), "b": one_hot(ids())}, np.linspace(0.5, 2, 6, dtype="float32")
    layer = mixup(target={"a": partner, "b": "labels"})
    plan = plan_of(layer)
    labels, weights = oracle.weighted(y["b"], w, *plan[:2])
    expected = {"a": y["a"][plan.permutation], "b": labels}, weights
    assert_near(at_step(path, layer, 0, (x, y, w))[1:], expected)


@pytest.mark.parametrize(
    "short", [lambda y, plan: {"a": y, "b": y[:2]}, lambda y, plan: y[:2], lambda y, plan: (y, np.float32(0))]
)
def test_a_callable_returns_one_row_for_each_sample(short):
    layer = kmix.MixUp(1.0, target=short, seed=1)
    with pytest.raises(ValueError, match="one row for each sample"):
        layer(np.ones((4, 2), "float32"), np.eye(4, dtype="float32"))
