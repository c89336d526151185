"""Weights copied into models of other classes and anchors, against what rows they should have."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from configs.checked import to_dict
from configs.schema import Anchors, Config, Model
from core.build import build_criterion, build_model
from core.heads import prior_bias
from core.weights.formats.coco import COCO_80
from core.weights.npz_files import OF_BACKBONE, Weights, stated
from core.weights.torch_and_keras_files import WeightsError
from core.weights.transfer import OUTPUTS, transfer

pytestmark = pytest.mark.full

SMALL = {"backbone": "resnet18", "neck_width": 16, "head_width": 16, "head_depth": 1}
PRIOR = prior_bias(0.01)


def by_place(model):
    return {v.path.split("/", 1)[1]: v.numpy() for v in model.variables}


def detector_weights(classes=COCO_80, seed=1, **settings):
    """Weights of a small detector, no two numbers alike and none where a fresh model has them."""
    config = Model(**SMALL | settings)
    rng = np.random.default_rng(seed)
    arrays = {}
    for place, array in by_place(build_model(config, len(classes))).items():
        low = 0.5 if place.endswith(("gamma", "variance")) else -0.05
        arrays[place] = rng.uniform(low, low + 0.1, array.shape).astype(np.float32)
    return Weights("coco.npz", arrays, stated("model", to_dict(config)), tuple(classes))


@pytest.fixture(scope="module")
def coco():
    return detector_weights()


def transferred(weights, classes, **settings):
    config = weights.settle(Model(weights="coco.npz", **settings))
    model = build_model(config, len(classes))
    fresh = by_place(model)
    report = transfer(weights, model, config, classes)
    return by_place(model), fresh, report, (model, config)


def rows(arrays, k, num_classes, num_anchors=9):
    """The kernel (3, 3, W, A) and the bias (A,) of class k."""
    kernel, bias = arrays["class_head/output/kernel"], arrays["class_head/output/bias"]
    kernel = kernel.reshape([*kernel.shape[:3], num_anchors, num_classes])
    return kernel[..., k], bias.reshape([num_anchors, num_classes])[:, k]


def test_the_same_classes_are_copied_whole(coco):
    after, _, report, _ = transferred(coco, COCO_80)
    assert after.keys() == coco.arrays.keys()
    for place, array in coco.arrays.items():
        np.testing.assert_array_equal(after[place], array, err_msg=place)
    assert sorted(report.copied) == sorted(coco.arrays)
    assert report.partly == report.initialised == report.unused == []
    assert report.num_copied == report.num_parameters == sum(a.size for a in after.values())
    assert report.lines() == [
        f"{len(after)} tensors copied, 0 partly: 100.00 % of {report.num_parameters:,} parameters"
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("classes", "aliases", "sources"),
    [
        ((*COCO_80, "head"), {}, [*range(80), None]),
        (("person", "head"), {}, [0, None]),
        (("head", "person"), {}, [None, 0]),
        (("pedestrian", "head"), {"pedestrian": "person"}, [0, None]),
        (("person", "rider"), {"rider": "person"}, [0, 0]),
        (("cat", "person"), {"person": "dog"}, [COCO_80.index("cat"), COCO_80.index("dog")]),
        (("head", "hand"), {}, [None, None]),
        (COCO_80[::-1], {}, list(range(80))[::-1]),
    ],
)
def test_class_rows_go_by_name(coco, classes, aliases, sources):
    after, _, report, _ = transferred(coco, classes, aliases=aliases)
    for k, source in enumerate(sources):
        kernel, bias = rows(after, k, len(classes))
        if source is None:
            np.testing.assert_array_equal(kernel, 0)
            np.testing.assert_allclose(bias, PRIOR, rtol=1e-6)
            assert report.classes[classes[k]] is None
        else:
            there = rows(coco.arrays, source, 80)
            np.testing.assert_array_equal(kernel, there[0])
            np.testing.assert_array_equal(bias, there[1])
            assert report.classes[classes[k]] == COCO_80[source]
    rest = [place for place in after if not place.startswith("class_head/output")]
    for place in rest:
        np.testing.assert_array_equal(after[place], coco.arrays[place], err_msg=place)
    assert report.copied == rest
    assert report.partly == ["class_head/output/kernel", "class_head/output/bias"]
    known = sum(source is not None for source in sources)
    per_class = 9 * (3 * 3 * 16 + 1)
    assert report.num_parameters - report.num_copied == (len(classes) - known) * per_class


@pytest.mark.slow
@pytest.mark.parametrize("classes", [(*COCO_80, "head"), ("person", "head")])
def test_the_first_class_loss_is_near_that_of_a_fresh_head(coco, classes):
    """What starts at the prior costs what it costs in a fresh model: no first step is lost to it.

    Of the new class alone, since what the other rows say is the weights' own affair.
    """
    rng = np.random.default_rng(0)
    images = tf.constant(rng.uniform(0, 255, [2, 128, 128, 3]), tf.float32)
    new = len(classes) - 1
    batch = {
        "images": images,
        "sizes": tf.constant([[128, 128], [128, 100]]),
        "boxes": tf.constant([[[10, 20, 60, 90]], [[5, 5, 70, 60]]], tf.float32),
        "labels": tf.constant([[new], [0]]),
    }
    _, _, _, (model, config) = transferred(coco, classes)
    keras.utils.set_random_seed(3)
    fresh = build_model(config, len(classes))
    criterion = build_criterion(Config(model=config))

    def losses(model, label):
        with tf.GradientTape() as tape:
            outputs = model(batch["images"], batch["sizes"], training=True)
            logits = outputs["class_logits"][..., label : label + 1]
            one = {"class_logits": logits, "box_deltas": outputs["box_deltas"]}
            labels = tf.where(batch["labels"] == label, 0, -1)
            loss = criterion(one, batch | {"labels": labels})["class_loss"]
        if label == new and model is not fresh:
            np.testing.assert_allclose(logits, PRIOR, rtol=1e-6)
        return float(loss), tape.gradient(loss, model.class_head.output_conv.kernel)

    loss, gradient = losses(model, new)
    assert np.isfinite(loss)
    assert loss == pytest.approx(losses(fresh, new)[0], rel=0.1), "whose logits scatter a little"
    assert np.isfinite(gradient).all()
    assert tf.norm(gradient) > 0, "a zero kernel learns"
    whole = criterion(model(images, batch["sizes"], training=True), batch)
    assert np.isfinite(whole["class_loss"])


def test_other_anchors_a_cell_start_both_outputs_afresh(coco):
    anchors = Anchors(scales=(1.0,))
    after, fresh, report, _ = transferred(coco, ("person", "head"), anchors=anchors)
    for place, array in after.items():
        expected = fresh if place in OUTPUTS else coco.arrays
        np.testing.assert_array_equal(array, expected[place], err_msg=place)
    assert sorted(report.initialised) == sorted(report.unused) == sorted(OUTPUTS)
    text = " ".join(report.lines())
    assert "initialised: 2 of class_head, 2 of box_head" in text
    assert "unused: 2 of class_head, 2 of box_head" in text
    assert "anchors: others than those of the weights" in text


def test_as_many_other_anchors_keep_the_outputs_and_are_told(coco):
    anchors = Anchors(sizes=(16.0, 32.0, 64.0, 128.0, 256.0))
    after, _, report, (_, config) = transferred(coco, COCO_80, anchors=anchors)
    np.testing.assert_array_equal(after[OUTPUTS[0]], coco.arrays[OUTPUTS[0]])
    assert report.lines()[-1] == "anchors: others than those of the weights"
    assert config.anchors.sizes[0] == 16


def test_a_backbone_leaves_the_rest_as_it_is(coco):
    arrays = {place: a for place, a in coco.arrays.items() if place.startswith("backbone/")}
    backbone = Weights("imagenet.npz", arrays, stated("backbone", to_dict(Model(**SMALL))))
    assert backbone.model.given == set(OF_BACKBONE)
    after, fresh, report, _ = transferred(
        backbone, ("a", "b"), neck_width=8, head_width=16, head_depth=1
    )
    for place, array in after.items():
        np.testing.assert_array_equal(array, (arrays if place in arrays else fresh)[place])
    assert report.copied == list(arrays)
    assert {place.split("/")[0] for place in report.initialised} == {
        "neck", "class_head", "box_head"
    }  # fmt: skip
    assert "initialised: 16 of neck, 4 of class_head, 4 of box_head" in report.lines()


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        ("neck/p6/kernel", "missing", "no neck/p6/kernel"),
        ("neck/p8/kernel", "added", r"neck/p8/kernel of \(3,\), the model has none"),
        ("neck/p6/bias", "longer", r"neck/p6/bias of \(17,\), the model has \(16,\)"),
        ("class_head/conv0/bias", "longer", "class_head/conv0/bias"),
    ],
)
def test_what_should_have_matched_is_an_error_and_nothing_is_assigned(coco, place, change, message):
    arrays = dict(coco.arrays)
    if change == "missing":
        del arrays[place]
    else:
        arrays[place] = np.zeros(3 if change == "added" else 17, np.float32)
    broken = Weights("broken.npz", arrays, coco.model, coco.classes)
    config = broken.settle(Model(weights="broken.npz"))
    model = build_model(config, 80)
    before = by_place(model)
    with pytest.raises(WeightsError, match=f"broken.npz: expected weights that fit.*{message}"):
        transfer(broken, model, config, COCO_80)
    for place, array in by_place(model).items():
        np.testing.assert_array_equal(array, before[place])


@pytest.mark.parametrize(
    ("aliases", "message"),
    [
        (
            {"pedestrian": "person"},
            "'pedestrian' among the classes of the data, found person, head",
        ),
        ({"head": "skull"}, "'skull' among the classes of coco.npz, found person"),
    ],
)
def test_an_alias_of_nobody_is_an_error(coco, aliases, message):
    with pytest.raises(WeightsError, match=f"model.aliases: expected {message}"):
        transferred(coco, ("person", "head"), aliases=aliases)
