import pytest

from data.formats.class_files import read_class_file
from data.writers.boxes_csv import write_csv

pytestmark = pytest.mark.quick

ROWS = [
    (0, (1, 2, 12, 13.5), 1, True, False, 77.25),
    (0, (1, 2, 12, 13), 0, False, True, None),
    (1, (1, 2, 3, 4), 1, False, True, None),
    (2, (0.1, 0, 640.5, 10), 0, False, False, None),
]


def test_the_files_and_what_they_lose(toolbox):
    root, losses = toolbox.written(write_csv, toolbox.dataset(ROWS), "images")
    assert (root / "train.csv").read_text("utf-8") == (
        "images/a#t=1.png,1,2,12,13.5,ключ\n"
        "images/z 1.png,,,,,\n"
        '"images/été, là.png",0.1,0,640.5,10,"chat, noir"\n'
    )
    assert read_class_file(root / "classes.csv") == toolbox.classes
    assert (root / "classes.csv").read_text("utf-8").splitlines()[:2] == [
        '"chat, noir",0',
        "ключ,1",
    ]
    assert losses == [
        "1 difficult flags: CSV has none",
        "2 regions to ignore: left out, CSV has none",
        "1 areas other than their box's: CSV has no areas",
    ]
