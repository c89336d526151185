"""What is right, wrong and missed, and the pictures of it."""

import csv

import cv2
import numpy as np
import pytest

from data.records import Defects, assemble
from results import outcomes, pictures
from results.outcomes import (
    FALSE_ALARM,
    MISSED,
    OUTCOMES,
    RIGHT,
    UNCOUNTED,
    draw_outcomes,
    judge,
    outcomes_on,
)
from results.pictures import draw_images
from utils.detections import DetectionTable
from utils.diary import diary
from utils.draw import contact_sheet

pytestmark = pytest.mark.full

SIZE = (64, 80)  # height, width
BOX, OTHER, FAR = [10, 10, 30, 30], [12, 10, 32, 30], [50, 10, 70, 30]
# image, box, class, difficult, ignore
OBJECTS = [
    (0, BOX, 0, False, False),  # found twice: once is right
    (0, FAR, 0, False, False),  # found as another class: missed
    (1, BOX, 0, True, False),  # difficult and found: counts nowhere
    (1, FAR, 1, False, True),  # a region: what lies on it counts nowhere
    (2, BOX, 1, True, False),  # difficult and not found: not missed
    (2, FAR, 1, False, False),  # missed
    (3, BOX, 1, False, False),  # found
]
# image, box, class, score, outcome
DETECTIONS = [
    (0, OTHER, 0, 0.6, FALSE_ALARM),
    (0, BOX, 0, 0.9, RIGHT),
    (0, FAR, 1, 0.8, FALSE_ALARM),
    (1, BOX, 0, 0.7, UNCOUNTED),
    (1, FAR, 1, 0.7, UNCOUNTED),
    (1, FAR, 0, 0.5, FALSE_ALARM),  # the region is of the other class
    (3, OTHER, 1, 0.4, RIGHT),
    (4, BOX, 0, 0.45, FALSE_ALARM),
]


def case(tmp_path):
    image, boxes, labels, difficult, ignore = zip(*OBJECTS, strict=True)
    files = []
    for number in range(5):
        files.append(str(tmp_path / f"{number}.png"))
        cv2.imwrite(files[-1], np.full((*SIZE, 3), 40 * number, np.uint8))
    dataset = assemble(
        "case", ("cat", "dog"), images=files, image_ids=files, sizes=[SIZE[::-1]] * 5,
        image_index=image, boxes=boxes, labels=labels, difficult=difficult, ignore=ignore,
        defects=Defects(),
    )  # fmt: skip
    image, boxes, labels, scores, outcomes = map(np.array, zip(*DETECTIONS, strict=True))
    table = DetectionTable(
        tuple(files), ("cat", "dog"), image=image, boxes=boxes, scores=scores, labels=labels
    )
    return dataset, table, outcomes


def test_outcomes_by_hand(tmp_path):
    dataset, table, expected = case(tmp_path)
    outcomes = judge(dataset, table)
    assert outcomes.detections.tolist() == expected.tolist()
    assert outcomes.missed.tolist() == [False, True, False, False, False, True, False]
    assert outcomes.counts.tolist() == [
        [1, 2, 1, 0], [0, 1, 0, 2], [0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0],
    ]  # fmt: skip
    # Three errors, then one each by the surest false alarm (0.5, 0.45, none), then none.
    assert outcomes.worst.tolist() == [0, 1, 4, 2, 3]


def test_without_detections_all_is_missed(tmp_path):
    dataset, table, _ = case(tmp_path)
    outcomes = judge(dataset, table.at_least(0.95))
    assert outcomes.counts[:, MISSED].tolist() == [2, 0, 1, 1, 0]
    assert outcomes.counts.sum() == 4
    assert outcomes.worst.tolist() == [0, 2, 3, 1, 4]


def test_pictures_table_and_totals_of_outcomes(tmp_path, capsys):
    dataset, table, _ = case(tmp_path)
    out = tmp_path / "out"
    with diary():
        draw_outcomes(out, dataset, table)
    said = " ".join(capsys.readouterr().err.split())
    expected = "case at IoU 0.5: 2 right, 4 false alarms, 2 missed: precision 0.333, recall 0.500"
    assert expected in said
    with open(out / "worst.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["image", "true_positives", "false_positives", "false_negatives"]
    assert rows[0] == [dataset.images[0], "1", "2", "1"]
    assert [row[0] for row in rows] == [dataset.images[i] for i in (0, 1, 4, 2, 3)]
    sheet = cv2.imread(str(out / "worst.png"))
    greys = [40 * number for number in (0, 1, 4, 2, 3)]
    # Five cells of 400 px in three columns: the images in order of `worst`.
    found = [sheet[300 * (k // 3) + 290, 410 * (k % 3) + 380].tolist() for k in range(5)]
    assert np.abs(np.array(found)[:, 0] - greys).max() < 40
    picture = cv2.imread(str(out / "00000_0.jpg"))
    assert picture.shape[0] > SIZE[0]
    assert picture.shape[1] > 2 * SIZE[1]


@pytest.mark.parametrize("draw", [draw_images, draw_outcomes])
def test_of_pictures_for_a_sheet_no_more_is_kept_than_it_shows(draw, tmp_path, monkeypatch):
    dataset, table, _ = case(tmp_path)
    large = np.random.default_rng(0).integers(0, 255, (700, 900, 3), np.uint8)
    monkeypatch.setattr(pictures, "decode_image", lambda path, bits: large)
    kept = []

    def watched(shown, **kwargs):
        kept.append((shown, kwargs["cell"]))
        return contact_sheet(shown, **kwargs)

    for module in (pictures, outcomes):
        monkeypatch.setattr(module, "contact_sheet", watched)
    draw(tmp_path / "out", dataset, table)
    assert len(kept) == (1 if draw is draw_images else 2)
    for shown, cell in kept:
        assert len(shown) == 5
        assert all((np.array(p.shape[:2]) <= cell).all() for p in shown)
        assert any(p.shape[0] == cell[0] or p.shape[1] == cell[1] for p in shown)
    if len(kept) == 2:
        assert kept[1][1] == (round(400 * 700 / 900), 400), "no room is left above and below"


def test_each_outcome_has_its_color_and_its_place(tmp_path):
    dataset, table, _ = case(tmp_path)
    outcomes = judge(dataset, table)
    image = np.full((*SIZE, 3), 128, np.uint8)

    def drawn(index, rows):
        picture = outcomes_on(image, index, np.array(rows), outcomes)
        return [(picture == color).all(axis=-1) for _, color, _ in OUTCOMES]

    right, false, missed, uncounted = drawn(0, [0, 1, 2])
    assert right[10:30, 10].any()
    assert false[10:30, 31].any()
    assert missed[29, 50:70].any()
    assert not uncounted.any()
    right, false, missed, uncounted = drawn(1, [3, 4])
    assert uncounted[29, 10:30].all()
    assert not (right | false | missed).any()
    right, false, missed, uncounted = drawn(2, np.zeros(0, int))
    assert missed[29, 50:70].any()
    assert not missed[10:30, 10].any(), "difficult"
