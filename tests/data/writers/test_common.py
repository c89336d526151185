import pytest

from data.records import Defects, assemble
from data.writers.common import check_classes, check_names, lost_numbers, number, pixels

pytestmark = pytest.mark.quick


def test_numbers_are_short():
    values = [0, 3, 100, 1e7, 0.1, 1 / 3, 639.9, 2**-20, -1.5]
    texts = ["0", "3", "100", "10000000", "0.1", "0.3333333333333333", "639.9",
             "0.00000095367431640625", "-1.5"]  # fmt: skip
    assert [number(value) for value in values] == texts
    assert pixels(0.3 - 0.1) == "0.2"


@pytest.mark.parametrize(
    "name",
    [
        "/etc/a.png",
        "../a.png",
        "a/../../b.png",
        "",
        "a\\b.png",
        "a\nb.png",
        " a.png",
        "\udc80",
        "a\u2028b",
    ],
)
def test_names_that_lead_elsewhere_are_refused(toolbox, name):
    with pytest.raises(ValueError, match=r"z 1\.png: expected a name ") as caught:
        check_names(["a.png", name, "c.png"], toolbox.dataset([]))
    assert repr(name) in str(caught.value)


def test_names_that_clash_are_both_named(toolbox):
    dataset = toolbox.dataset([])
    check_names(["x/a.png", "x/a.jpg", "9.41\u202fPM.png"], dataset)
    clash = r"là\.png: would be called a\.png, and so would .*a#t=1\.png"
    with pytest.raises(ValueError, match=clash):
        check_names(["a.png", "a.jpg", "a.png"], dataset)
    with pytest.raises(ValueError, match=r"là\.png: would be called x/a\.jpg, and so would .*z 1"):
        check_names(["a.png", "x/a.png", "x/a.jpg"], dataset, by_stem=True)


@pytest.mark.parametrize("name", [" dog", "dog\t", "hot\ndog", "\x1b[1m"])
def test_class_names_that_text_cannot_hold_are_refused(name):
    check_classes(("hot dog", "собака, большая"))
    with pytest.raises(ValueError, match="expected a name without line ends") as caught:
        check_classes(("cat", name))
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize(
    ("areas", "category_ids", "losses"),
    [
        (None, None, []),
        ([12.0, 7.0], None, ["1 areas other than their box's: VOC has no areas"]),
        (None, (1, 3), ["2 category ids: VOC has none"]),
    ],
)
def test_areas_and_numbers_of_ones_own_are_said_to_be_lost(areas, category_ids, losses):
    dataset = assemble(
        "a/train", ("cat", "dog"), images=["a.jpg"], image_ids=["a"], sizes=[[9, 9]],
        image_index=[0, 0], boxes=[[1, 1, 4, 5], [0, 0, 2, 4]], labels=[0, 1], areas=areas,
        category_ids=category_ids, defects=Defects(),
    )  # fmt: skip
    assert lost_numbers(dataset, "VOC") == losses
