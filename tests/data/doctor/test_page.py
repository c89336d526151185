"""The page and its pictures: what is shown, and how much."""

import base64
import re

import cv2
import numpy as np
import pytest
from PIL import Image

from configs.schema import Canvas
from data.doctor.figures import split_figures
from data.doctor.findings import Finding, Shown, box_findings
from data.doctor.page import MAX_LISTED, by_kind, render
from data.doctor.pictures import LEAST, SIDE, bars, examples, samples
from data.records import Defects, assemble

pytestmark = pytest.mark.quick

GREY = 120


@pytest.fixture
def dataset(tmp_path):
    """Two grey images of 400x300; the first has two boxes drawn twice nearly."""
    for name in "ab":
        Image.new("RGB", (400, 300), (GREY,) * 3).save(tmp_path / f"{name}.png")
    return assemble(
        "set/<train>",
        ("cat",),
        images=[str(tmp_path / f"{name}.png") for name in "ab"],
        image_ids=["a", "b"],
        sizes=np.array([[400, 300]] * 2),
        image_index=np.array([0, 0]),
        boxes=[[300, 200, 330, 220], [300, 200, 330, 221]],
        labels=[0, 0],
        defects=Defects(),
    )


def pixels_of(uri):
    kind, data = uri.split(";base64,")
    assert kind in ("data:image/jpeg", "data:image/png")
    image = cv2.imdecode(np.frombuffer(base64.b64decode(data), np.uint8), cv2.IMREAD_COLOR_RGB)
    assert image is not None
    return image


def finding(kind, severity="note", message="a message", shown=(), stops=False):
    return Finding(kind, severity, "train", "a.png", "", message, stops, shown)


def report_of(dataset, headline="fine", proposed=None):
    return {
        "name": "run",
        "headline": headline,
        "accepted": True,
        "classes": list(dataset.classes),
        "splits": {"train": split_figures(dataset, Canvas(height=96, width=128))},
        "anchors": {"line": "covered: 50 %", "proposed": proposed},
    }


def test_kinds_in_order_of_severity():
    found = [finding("b"), finding("z", "error"), finding("a"), finding("b", "warning")]
    assert list(by_kind([*found, found[0]])) == [
        ("error", "z"), ("warning", "b"), ("note", "a"), ("note", "b")
    ]  # fmt: skip
    assert by_kind([*found, found[0]])["note", "b"] == [found[0]] * 2


def test_an_example_frames_its_boxes(dataset):
    """At the side shown: the boxes, as wide again around them; lines are not grey."""
    found = box_findings(dataset, "train")
    assert len(found) == 1
    ((uri, message),) = examples(found, {"train": dataset})
    assert message == found[0].message
    image = pixels_of(uri).astype(int)
    scale = SIDE / LEAST  # 3 x 30 px are less than what is shown at least
    assert image.shape == (SIDE, SIDE, 3)
    corner = np.array([315 - LEAST / 2, 210.5 - LEAST / 2])
    x, y = np.round((np.array([315, 200]) - corner) * scale).astype(int)
    assert np.abs(image[y : y + 3, x] - GREY).max() > 40
    assert np.abs(image[y + 30, x] - GREY).max() < 20


def test_an_example_of_two_images_shows_both(dataset):
    shown = (Shown("train", 0), Shown("train", 1))
    ((uri, _),) = examples([finding("twice", shown=shown)], {"train": dataset})
    height, width, _ = pixels_of(uri).shape
    assert width > 1.9 * SIDE > height


def test_examples_are_few_and_of_images_that_decode(dataset, tmp_path):
    shown = (Shown("train", 1),)
    found = [finding("x"), *[finding("x", shown=shown)] * 9]
    assert len(examples(found, {"train": dataset})) == 4
    (tmp_path / "b.png").write_bytes(b"")
    assert examples(found, {"train": dataset}) == []


def test_samples_leave_out_what_does_not_decode(dataset, tmp_path):
    whole = pixels_of(samples(dataset)).shape
    (tmp_path / "b.png").write_bytes(b"")
    assert pixels_of(samples(dataset)).shape[1] < whole[1]
    (tmp_path / "a.png").write_bytes(b"")
    assert samples(dataset) is None


def test_bars_are_a_picture():
    image = pixels_of(bars("sizes", {"train": {"0-8": 1, "8+": 3}, "val": {"0-8": 0, "8+": 0}}))
    assert image.std() > 5


def test_the_page_needs_no_other_file_and_escapes_names(dataset):
    message = "<script>alert(1)</script>"
    found = [finding("kind & co", "error", message, stops=True)]
    page = render(report_of(dataset, headline="1 < 2"), found, {"train": dataset})
    assert message not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "kind &amp; co: 1 (stops training)" in page
    assert "1 &lt; 2" in page
    assert "set/&lt;train&gt;" in page
    assert not [
        source for source in re.findall(r'(?:src|href)="([^"]*)"', page) if source[:5] != "data:"
    ]
    assert "the present set is fine" in page
    assert "Nothing was found" not in page


def test_the_page_without_findings_and_with_anchors(dataset):
    proposed = {"line": "covered: 70 %", "snippet": '"model.anchors.sizes": (8.0,),'}
    page = render(report_of(dataset, proposed=proposed), [], {"train": dataset})
    assert "Nothing was found" in page
    assert "covered: 70 %" in page
    assert "&#34;model.anchors.sizes&#34;: (8.0,)," in page
    assert "the present set is fine" not in page


def test_long_lists_are_cut(dataset):
    found = [finding("x", message=f"message {i}.") for i in range(MAX_LISTED + 7)]
    page = render(report_of(dataset), found, {"train": dataset})
    assert f"message {MAX_LISTED - 1}." in page
    assert f"message {MAX_LISTED}." not in page
    assert "and 7 more, all in report.json" in page
    assert page.count("<li>") == MAX_LISTED == 20
