"""A run's curves, kept as a file: the points at which an object is found."""

import cv2
import pytest

from configs import preset
from data.records import Defects, assemble
from images import curves
from results.scoring import score
from tests.results.test_scoring import detect

pytestmark = pytest.mark.quick


def test_the_file_has_a_line_for_each_object_found(tmp_path):
    """The second detection finds what is found already: no line, but a lower precision after it.

    Envelope: 1 up to a recall of 1/2, then 2/3: (1 + 2/3) / 2.
    """
    dataset = assemble(
        "set/val",
        ("cat",),
        images=["a.jpg"],
        image_ids=["a"],
        sizes=[[100, 80]],
        image_index=[0, 0],
        boxes=[[0, 0, 40, 80], [50, 0, 90, 80]],
        labels=[0, 0],
        defects=Defects(),
    )
    table = detect(dataset, [0, 0, 1], [0.9, 0.8, 0.7])
    scores = score(table, dataset, preset("shapes"))
    curves.store(tmp_path / "curves.csv", scores)
    assert (tmp_path / "curves.csv").read_text().split() == [
        "class,ap,recall,precision",
        "cat,0.8333,0.5000,1.0000",
        "cat,0.8333,1.0000,0.6667",
    ]
    curves.draw(tmp_path / "curves.png", tmp_path / "curves.csv")
    assert cv2.imread(str(tmp_path / "curves.png")).std() > 5
