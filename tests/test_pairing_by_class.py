"""Rules of pairing by class, `DifferentLabels` and `SameLabels`, against all pairs of rows by hand."""

import json

import keras
import numpy as np
import oracle
import pytest
from golden.write import hashed
from helpers import (
    BACKEND,
    assert_near,
    at_step,
    choice,
    data,
    embedding,
    every_path,
    fit,
    ids,
    mixup,
    network,
    predictions,
    raises,
    refused,
    tf,
    to_numpy,
    trainer_of,
)
from scipy import stats
from test_pairing import NAMESPACES

import kmix
from kmix.pairing import DifferentLabels, SameLabels, SimilarLabels
from kmix.plan import PlanKey
from kmix.targets import BoundingBoxes, LabelPairs, Labels, SegmentationMasks

N = 12
DOMAINS = np.array([0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 7, 0])
IDS = np.array([0, 0, 0, 1, 1, 1, 2, 2, 0, 1, 3, 2])
# Classes in common, a row of zeros, and a row with a class of its own.
TAGS = np.eye(5, dtype="int32")[IDS] | np.eye(5, dtype="int32")[np.where(np.arange(N) % 3, IDS, 2)]
TAGS[10], TAGS[11] = [0, 0, 0, 0, 1], 0
SOFT = np.random.default_rng(0).dirichlet(np.ones(4), N).astype("float32")
SOFT[:2] = [0.4, 0.4, 0.1, 0.1], [0.1, 0.4, 0.4, 0.1]
# name: (settings of the layer, labels, the classes of each row)
LABELS = {
    "ids": ({"num_classes": 4}, IDS, [{i} for i in IDS]),
    "a column of ids": ({"num_classes": 4}, IDS[:, None].astype("uint8"), [{i} for i in IDS]),
    "pairs": ({"target": LabelPairs(4)}, IDS, [{i} for i in IDS]),
    "one-hot": ({}, np.eye(4, dtype="float32")[IDS], [{i} for i in IDS]),
    "multi-hot": ({}, TAGS, [set(np.flatnonzero(row)) for row in TAGS]),
    "union": ({"target": "union"}, TAGS.astype("float32"), [set(np.flatnonzero(row)) for row in TAGS]),
    "soft": ({}, SOFT, [{i} for i in SOFT.argmax(axis=1)]),
    "one class": ({"num_classes": 1}, np.zeros(N, int), [{0}] * N),
}
RULES = {
    "different": DifferentLabels(),
    "same": SameLabels(),
    "different, one domain": DifferentLabels(same="domain"),
    "same, other domain": SameLabels(other="domain"),
}
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def candidates(rule, classes, domains=DOMAINS):
    """Whether sample j may be the partner of sample i, row by row."""
    allowed = np.zeros((len(classes), len(classes)), bool)
    for i, own in enumerate(classes):
        for j, other in enumerate(classes):
            share = bool(own & other)
            fits = share if isinstance(rule, SameLabels) else not share
            if rule._group is not None:
                fits = fits and (domains[i] == domains[j]) == isinstance(rule, DifferentLabels)
            allowed[i, j] = fits and i != j
    return allowed


def assert_follows(permutation, allowed):
    """Assert that every partner is a candidate, and that a sample without candidates is its own partner."""
    for i, partner in enumerate(permutation):
        assert allowed[i, partner] if allowed[i].any() else partner == i


def with_domain(settings):
    """The settings of a layer, and what names the labels, for a dictionary batch with a domain."""
    target = settings.get("target", Labels(settings.get("num_classes")))
    return {"target": {"labels": target, "domain": "keep"}}


def dense(mixed, settings):
    return oracle.dense(mixed, 4) if isinstance(settings.get("target"), LabelPairs) else mixed


def encoded(settings, y):
    classes = 1 if settings.get("num_classes") == 1 else 4
    return y.astype("float32") if y.ndim == 2 and y.shape[1] > 1 else np.eye(classes, dtype="float32")[y.reshape(-1)]


@every_rule
@pytest.mark.parametrize("name", LABELS)
def test_partners_follow_the_rule(name, rule):
    settings, y, classes = LABELS[name]
    allowed = candidates(rule, classes)
    layer, drawn = mixup(pairing=rule, **with_domain(settings)), set()
    for step in range(20):
        permutation = layer.plan(step, N, targets={"labels": y, "domain": DOMAINS}).permutation
        assert_follows(permutation, allowed)
        drawn |= set(enumerate(permutation.tolist()))
    # Over the steps, others than the first candidate, too.
    assert len(drawn) > N or allowed.sum(axis=1).max() < 2


def test_candidates_are_equally_likely():
    for rule in (DifferentLabels(), SameLabels(other="domain")):
        counts, steps = np.zeros((N, N)), 2000
        for step in range(steps):
            key = PlanKey(step, seed=7)
            partners = rule.partners(NAMESPACES[0], None, key, {"labels": IDS, "domain": DOMAINS})
            counts[np.arange(N), partners] += 1
        allowed = candidates(rule, LABELS["ids"][2])
        for row, which in zip(counts, allowed, strict=True):
            if which.sum() > 1:
                assert row[~which].sum() == 0
                assert stats.chisquare(row[which]).pvalue > 1e-4


def test_partners_never_change():
    """The largest of the uniform numbers of the candidates, from the formula of the hash."""
    seed, step, stream = 3, 5, 96
    k0 = hashed(step ^ hashed(seed))
    k1 = hashed(seed ^ hashed((k0 + 0x9E3779B9) & 0xFFFFFFFF))
    salt = hashed((stream * 0x9E3779B9 + k1) & 0xFFFFFFFF)
    words = np.array([hashed(salt ^ hashed((i + k0) & 0xFFFFFFFF)) for i in range(N * N)]).reshape(N, N)
    golden = {
        "different": GOLDEN_DIFFERENT,
        "same, other domain": GOLDEN_SAME,
    }
    for name, expected in golden.items():
        allowed = candidates(RULES[name], LABELS["ids"][2])
        largest = np.where(allowed, words, -1).argmax(axis=1)
        np.testing.assert_array_equal(np.where(allowed.any(axis=1), largest, np.arange(N)), expected)
        layer = mixup(pairing=RULES[name], target={"labels": Labels(4), "domain": "keep"}, seed=seed)
        plan = layer.plan(step, N, targets={"labels": IDS, "domain": DOMAINS})
        np.testing.assert_array_equal(plan.permutation, expected)


GOLDEN_DIFFERENT = [4, 10, 11, 0, 7, 8, 8, 8, 9, 8, 9, 5]
GOLDEN_SAME = [1, 0, 1, 4, 5, 9, 7, 6, 2, 3, 10, 7]


@pytest.mark.parametrize("xp", NAMESPACES[1:], ids=lambda xp: type(xp).__name__)
def test_partners_by_class_are_equal_on_every_framework(xp):
    for name in ("ids", "multi-hot", "soft"):
        y = LABELS[name][1]
        for step, rule in enumerate(RULES.values()):
            targets = {"labels": y, "domain": DOMAINS}
            expected = rule.partners(NAMESPACES[0], None, PlanKey(step, seed=9), targets)
            given = {key: xp.asarray(value) for key, value in targets.items()}
            key = PlanKey(xp.asarray(np.int32(step)), seed=9)
            np.testing.assert_array_equal(to_numpy(rule.partners(xp, None, key, given)), expected)
            # As in a compiled step, where nothing is read on the host.
            score = xp.cast(rule.score(xp, given), "float32")
            np.testing.assert_array_equal(
                np.isfinite(to_numpy(score)) & ~np.eye(N, dtype=bool), candidates(rule, LABELS[name][2])
            )


@pytest.mark.in_turn
@pytest.mark.fast("ids-same, other domain*", "multi-hot-different-n*")
@every_path
@every_rule
@pytest.mark.parametrize("name", ["ids", "pairs", "multi-hot", "soft"])
def test_batches_paired_by_class(name, rule, path):
    settings, y, classes = LABELS[name]
    layer = mixup(pairing=rule, **with_domain(settings))
    x = data(N, (4,))
    mixed = at_step(path, layer, 3, {"images": x, "labels": y, "domain": DOMAINS})
    plan = layer.plan(3, N, targets={"labels": y, "domain": DOMAINS})
    assert not plan.bijective
    assert_near(mixed["images"], oracle.mixup(x, *plan[:2]))
    labels = dense(mixed["labels"], settings)
    assert_near(labels, oracle.mixup(encoded(settings, y), *plan[:2]))
    np.testing.assert_array_equal(mixed["domain"], DOMAINS)
    alone = ~candidates(rule, classes).any(axis=1)
    assert alone.any() or rule == DifferentLabels()
    np.testing.assert_array_equal(mixed["images"][alone], x[alone])
    np.testing.assert_array_equal(labels[alone], encoded(settings, y)[alone])


def test_samples_without_a_candidate_come_out_as_they_were():
    x, y = data(4, (8, 8, 3)), np.array([0, 1, 2, 0])
    for layer in (
        mixup(num_classes=3, pairing="same_labels"),
        kmix.CutMix(num_classes=3, pairing="same_labels", seed=1),
    ):
        mixed, labels = layer.at_step(0, (x, y))
        np.testing.assert_array_equal(mixed[1:3], x[1:3])
        assert (mixed[[0, 3]] != x[[0, 3]]).any()
        np.testing.assert_array_equal(labels, np.eye(3)[y])
    alone = mixup(num_classes=3, pairing="different_labels").at_step(0, (x[:1], y[:1]))
    assert_near(alone, (x[:1], np.eye(3)[y[:1]]))
    same = mixup(num_classes=3, pairing="different_labels").at_step(0, (x, np.zeros(4, int)))
    assert_near(same, (x, np.eye(3)[np.zeros(4, int)]))


# Groups.


@pytest.mark.xla
def test_a_program_does_not_keep_the_domains_of_a_data_set():
    layer = mixup(pairing=SameLabels(other="domain"), target={"labels": Labels(2), "domain": "keep", "name": "keep"})
    x, y, names = data(6, (4,)), np.array([0, 0, 0, 1, 1, 1]), np.array(list("abcdef"))
    for domains in ([0, 1, 2, 0, 0, 1], [0, 0, 1, 2, 1, 0]):
        kept = {"labels": y, "domain": np.array(domains), "name": names}
        ds = tf.data.Dataset.from_tensors(x)
        mixed = next(iter(ds.map(lambda x, kept=kept: layer.at_step(0, {"images": x, **kept}))))
        plan = layer.plan(0, 6, targets={"labels": y, "domain": kept["domain"]})
        assert_follows(plan.permutation, candidates(layer.pairing, [{i} for i in y], domains))
        assert_near(mixed["images"], oracle.mixup(x, *plan[:2]))


@pytest.mark.fast("numpy", "native")
@every_path
def test_lisa(path):
    """Yao et al. 2022: partners of one label and two domains, or of one domain and two labels."""
    target = {"labels": Labels(4), "domain": "keep"}
    layers = [kmix.MixUp(2.0, target=target, pairing=rule, seed=2) for rule in list(RULES.values())[:1:-1]]
    lisa, x, seen = kmix.RandomChoice(layers, [0.5, 0.5], seed=1), data(N, (4,)), set()
    copy = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(lisa))))
    for step in range(6):
        plan = lisa.plan(step, N, targets={"labels": IDS, "domain": DOMAINS})
        assert_follows(plan.permutation, candidates(layers[int(plan.choice)].pairing, LABELS["ids"][2]))
        seen.add(int(plan.choice))
        if step < 2:
            mixed = at_step(path, copy, step, {"images": x, "labels": IDS, "domain": DOMAINS})
            assert_near(mixed["images"], oracle.mixup(x, *plan[:2]))
            assert_near(mixed["labels"], oracle.mixup(np.eye(4)[IDS], *plan[:2]))
    assert seen == {0, 1}


def test_the_label_and_the_group_of_several():
    y = {"class": IDS, "patient": DOMAINS, "age": data(N, ())}
    target = {"class": Labels(4), "patient": "keep", "age": Labels()}
    layer = mixup(pairing=SameLabels(label="class", other="patient"), target=target)
    assert_follows(layer.plan(0, N, targets=y).permutation, candidates(RULES["same, other domain"], LABELS["ids"][2]))
    # What is kept is a label like others, and the group is none.
    layer = mixup(pairing=DifferentLabels(label="patient"), target=target)
    assert_follows(layer.plan(0, N, targets=y).permutation, candidates(DifferentLabels(), [{i} for i in DOMAINS]))
    layer = mixup(pairing=DifferentLabels(same=1), target=["labels", "keep"], num_classes=None)
    tuples = (np.eye(4, dtype="float32")[IDS], DOMAINS)
    expected = candidates(RULES["different, one domain"], LABELS["ids"][2])
    assert_follows(layer.plan(0, N, targets=tuples).permutation, expected)
    _, mixed = layer.at_step(0, (data(N, (4,)), tuples))
    assert_near(mixed[0], oracle.mixup(tuples[0], *layer.plan(0, N, targets=tuples)[:2]))


# In a trainer.


@pytest.mark.fast("losses")
@pytest.mark.parametrize("form", ["labels", "losses", "pairs"])
def test_in_a_trainer(form):
    target = LabelPairs(4) if form == "pairs" else Labels(4)
    loss = keras.losses.SparseCategoricalCrossentropy() if form == "losses" else None
    mixer = mixup(pairing="different_labels", target=target)
    trainer, x = trainer_of(network(4), loss, mixer=mixer, mix_losses=form == "losses"), data(N, (5,))
    plan = trainer.plan(0, N, targets=IDS)
    assert_follows(plan.permutation, candidates(DifferentLabels(), LABELS["ids"][2]))
    p = predictions(trainer.model, oracle.mixup(x, *plan[:2]))
    expected = oracle.crossentropy(oracle.mixup(np.eye(4)[IDS], *plan[:2]), p).mean()
    assert fit(trainer, x, IDS)["loss"] == pytest.approx(expected, rel=1e-4)


@pytest.mark.slow
def test_hidden_layers_pair_by_class():
    inputs = keras.Input((5,))
    model = keras.Model(inputs, keras.layers.Dense(4, "softmax")(embedding(pairing="same_labels")(inputs)))
    trainer = trainer_of(model, placed=True)
    x = data(N, (5,))
    plan = trainer.plan(0, N, targets=np.eye(4, dtype="float32")[IDS])
    assert_follows(plan.permutation, candidates(SameLabels(), LABELS["ids"][2]))
    p = predictions(keras.Model(inputs, model.layers[-1](inputs)), oracle.mixup(x, *plan[:2]))
    assert fit(trainer, x, IDS)["loss"] == pytest.approx(oracle.crossentropy(np.eye(4)[IDS], p).mean(), rel=1e-4)


def test_a_trainer_has_no_groups():
    for rule in (DifferentLabels(same="domain"), SameLabels(other="domain")):
        trainer = trainer_of(network(4), mixer=mixup(pairing=rule))
        raises(
            lambda trainer=trainer: trainer.fit(data(N, (5,)), IDS, verbose=0),
            "domain",
            "MixTrainer gets inputs and labels",
        )


# What is refused.

REFUSED = {
    "numbers to regress": ({}, data(6, ()), {}, ["compares classes", r"float32 and shape \(6,\)", "similar_labels"]),
    "a column": ({}, data(6, (1,)), {}, ["compares classes", r"\(6, 1\)", "num_classes=2"]),
    "too many axes": ({"target": Labels(any_shape=True)}, data(6, (2, 3)), {}, [r"\(6, 2, 3\)"]),
    "masks": (
        {"target": SegmentationMasks(3)},
        np.zeros((6, 4, 4), "uint8"),
        {},
        ["compares classes", r"\(6, 4, 4\)"],
    ),
    "none named": ({}, {"a": data(6, (3,)), "b": data(6, (3,))}, {}, ["label=None", "one of .*a.*b"]),
    "a wrong name": ({}, {"a": data(6, (3,)), "b": data(6, (3,))}, {"label": "c"}, ["label='c'"]),
    "no group": ({}, data(6, (3,)), {"group": "domain"}, ["'domain'", "dictionary batch", "MixTrainer"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_labels_without_classes_are_refused(name):
    settings, y, given, words = REFUSED[name]
    for cls, key in ((DifferentLabels, "same"), (SameLabels, "other")):
        rule = cls(**{key if name == "group" else name: value for name, value in given.items()})
        layer, x = mixup(pairing=rule, **settings), data(6, (4, 4, 1))
        refused(layer, (x, y), *words, every_way=False)
        raises(lambda layer=layer: layer.plan(0, 6, targets=y), cls.__name__, *words)
        choice_of = kmix.RandomChoice([mixup(**settings), layer])
        raises(lambda choice_of=choice_of, x=x: choice_of(x, y), *words)
        if cls is SameLabels:
            symbols = keras.tree.map_structure(lambda leaf: keras.KerasTensor(leaf.shape, dtype=str(leaf.dtype)), y)
            raises(lambda layer=layer, symbols=symbols: layer(keras.KerasTensor((6, 4, 4, 1)), symbols), *words)


def test_groups_that_are_refused():
    layer = mixup(pairing=SameLabels(other="domain"), target={"labels": Labels(3), "domain": "keep"})
    batch = {"images": data(6, (4,)), "labels": ids(6)}
    refused(layer, {**batch, "domain": np.array(list("aabbcc"))}, "'domain' of dtype", "Number groups", every_way=False)
    refused(layer, {**batch, "domain": data(6, ())}, "'domain' of dtype float32", every_way=False)
    refused(layer, {**batch, "domain": {"a": np.arange(6)}}, "compares an entry", every_way=False)
    refused(layer, {**batch, "domain": np.arange(5)}, "one group of each sample", every_way=False)
    boxes = {"boxes": data(6, (2, 4)), "classes": np.zeros((6, 2), "float32")}
    detector = mixup(pairing="same_labels", target=BoundingBoxes("xyxy"))
    refused(detector, (data(6, (8, 8, 3)), boxes), "needs one label", every_way=False)


def test_arguments_that_are_refused():
    raises(lambda: DifferentLabels(same=1.5), "`same`", errors=TypeError)
    raises(lambda: SameLabels(other=[1]), "`other`", errors=TypeError)
    raises(lambda: SameLabels(label=1.5), "`label`", errors=TypeError)
    raises(lambda: SameLabels(other="a", label="a"), "another entry", "other='a'")
    raises(lambda: SameLabels(within="shard"), "whole batch")
    raises(lambda: SameLabels(allow_self=True), "allow_self", errors=TypeError)
    raises(lambda: mixup(pairing="same_labels").plan(0, 4), "depends on the targets")
    raises(lambda: mixup(pairing=SameLabels), r"Write `SameLabels\(\)`", errors=TypeError)
    raises(lambda: kmix.Mosaic(pairing="same_labels"), "no rule with a score")
    batch = data(6, (4,)), np.eye(3, dtype="float32")[ids(6)]
    raises(lambda: mixup(pairing="same_labels").at_step(0, batch, partner=batch), "leave out")


def test_a_rule_is_its_settings():
    for rule in (*RULES.values(), SameLabels(label="a", other="b"), DifferentLabels(label=0, same=1)):
        config = json.loads(json.dumps(keras.saving.serialize_keras_object(rule)))
        assert keras.saving.deserialize_keras_object(config) == rule == rule.replace()
        layer = choice(pairing=rule, num_classes=3)
        copy = keras.layers.deserialize(json.loads(json.dumps(keras.layers.serialize(layer))))
        assert copy.layers[0]._pairing == rule
    assert repr(SameLabels(other="b")) == "SameLabels(other='b')"
    assert DifferentLabels() != SameLabels() != SimilarLabels()
    assert mixup(pairing="same_labels")._pairing == SameLabels()
    assert mixup(pairing="different_labels")._pairing == DifferentLabels()


@pytest.mark.skipif(BACKEND != "jax", reason="about the compiler of JAX")
def test_partners_by_class_inside_jit():
    import jax

    layer = mixup(pairing=RULES["same, other domain"], target={"labels": Labels(4), "domain": "keep"})
    batch = {"images": data(N, (4,)), "labels": IDS, "domain": DOMAINS}
    expected = layer.at_step(3, batch)
    assert_near(jax.jit(layer.at_step)(3, batch), expected)
    # What is kept may stay outside.
    names = {**batch, "id": np.array(list("abcdefghijkl"))}
    layer = mixup(pairing=layer.pairing, target={**layer.target, "id": "keep"})
    mixed = jax.jit(lambda step: layer.at_step(step, names)["images"])(3)
    assert_near(mixed, expected["images"])
