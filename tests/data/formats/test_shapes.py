import json

import cv2
import numpy as np
import pytest
from lxml import etree

from data.formats import shapes

pytestmark = pytest.mark.quick

SIZE = (96, 128)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return shapes.make_shapes(tmp_path_factory.mktemp("shapes") / "set", 30, 8, SIZE, seed=3)


@pytest.fixture(scope="module")
def scenes():
    return [shapes.make_scene(np.random.default_rng((0, 0, i)), (192, 192)) for i in range(250)]


def all_files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def frame_of(mask):
    """xyxy of the True pixels, found the plain way."""
    rows, columns = np.nonzero(mask)
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


def read_annotation(path):
    tree = etree.parse(str(path))
    return tree, [
        (node.findtext("name"), *(int(node.findtext(f"bndbox/{c}")) for c in corners))
        for corners in [("xmin", "ymin", "xmax", "ymax")]
        for node in tree.findall("object")
    ]


def test_the_folder_holds_what_was_asked_for(root):
    for split, count in (("train", 30), ("val", 8)):
        stems = (root / f"ImageSets/Main/{split}.txt").read_text().split()
        assert len(stems) == len(set(stems)) == count
        for stem in stems:
            assert (root / f"JPEGImages/{stem}.jpg").is_file()
            assert (root / f"Annotations/{stem}.xml").is_file()
    assert len(list(root.glob("JPEGImages/*"))) == len(list(root.glob("Annotations/*"))) == 38
    assert [path.name for path in root.parent.iterdir()] == ["set"], "temporary folder left behind"


def test_annotations_agree_with_images(root):
    for path in root.glob("Annotations/*.xml"):
        tree, objects = read_annotation(path)
        image = cv2.imread(str(root / "JPEGImages" / tree.findtext("filename")))
        assert image.shape == (*SIZE, 3)
        size = [int(tree.findtext(f"size/{tag}")) for tag in ("height", "width", "depth")]
        assert size == [*SIZE, 3]
        assert len(objects) <= 8
        for name, xmin, ymin, xmax, ymax in objects:
            assert name in shapes.CLASSES
            assert 1 <= xmin < xmax <= SIZE[1]
            assert 1 <= ymin < ymax <= SIZE[0]
        for node in tree.findall("object"):
            assert node.findtext("truncated") in "01"
            assert node.findtext("difficult") in "01"


def test_written_boxes_are_one_based_and_inclusive(root):
    """The files hold the frames of the masks of the same scene, column 0 written as 1."""
    checked = 0
    for index in range(8):
        _, objects = shapes.make_scene(np.random.default_rng((3, 1, index)), SIZE)
        _, written = read_annotation(root / f"Annotations/val_{index:05d}.xml")
        assert len(written) == len(objects)
        for item, (name, xmin, ymin, xmax, ymax) in zip(objects, written, strict=True):
            full = np.zeros(SIZE, np.uint8)
            full[item.stencil.window] = item.stencil.coverage
            rows, columns = np.nonzero(full)
            assert name == item.stencil.name
            assert (xmin, xmax) == (columns.min() + 1, columns.max() + 1)
            assert (ymin, ymax) == (rows.min() + 1, rows.max() + 1)
            checked += 1
    assert checked >= 8


@pytest.mark.parametrize("name", shapes.CLASSES)
@pytest.mark.parametrize("center", [(40.3, 30.7), (2.0, 30.0), (62.5, 58.0)])
def test_boxes_frame_the_pixels_painted(name, center):
    stencil = shapes.make_stencil(name, 21.0, center, (60, 64), rotation=20, outline=0.1)
    image = np.full((60, 64, 3), 200, np.float32)
    shapes.paint(image, stencil, np.zeros(3), np.full(3, 20))
    assert stencil.box == frame_of((image != 200).any(axis=-1))
    inside = center == (40.3, 30.7)
    assert stencil.truncated == (not inside)
    if inside:
        width, height = np.subtract(stencil.box[2:], stencil.box[:2])
        assert max(width, height) == pytest.approx(21, abs=1.5)


def test_a_square_lies_where_geometry_says():
    stencil = shapes.make_stencil("square", 10.0, (15.0, 20.0), (40, 40))
    assert stencil.box == (10, 15, 20, 25)
    assert (stencil.coverage == 255).all()
    assert stencil.full_area == 100
    half_out = shapes.make_stencil("square", 10.0, (0.0, 20.0), (40, 40))
    assert half_out.box == (0, 15, 5, 25)
    assert half_out.full_area == 100


@pytest.mark.parametrize("center", [(-30, 20), (20, 80), (45.9, 20), (300, -300)])
def test_nothing_is_drawn_outside(center):
    assert shapes.make_stencil("circle", 10.0, center, (40, 40)) is None


def test_the_smallest_classes_differ():
    masks = {
        name: cv2.resize(
            shapes.make_stencil(name, 16.0, (16, 16), (32, 32)).coverage, (16, 16)
        ).astype(float)
        for name in shapes.CLASSES
    }
    for a in masks:
        for b in masks:
            if a < b:
                assert np.abs(masks[a] - masks[b]).mean() / 255 > 0.12, (a, b)


def test_shares_of_classes_and_empty_images(scenes):
    names = [item.stencil.name for _, objects in scenes for item in objects]
    shares = np.array([names.count(name) for name in shapes.CLASSES]) / len(names)
    np.testing.assert_allclose(shares, shapes.CLASS_SHARES, atol=0.06)
    empty = np.mean([not objects for _, objects in scenes])
    assert 0.02 < empty < 0.11
    assert max(len(objects) for _, objects in scenes) == 8


def test_objects_vary_yet_stay_visible(scenes):
    items = [item for _, objects in scenes for item in objects]
    sides = np.array([max(item.stencil.coverage.shape) for item in items])
    assert sides.min() < 34
    assert sides.max() > 95
    assert sides.min() >= 12
    visible = np.array([item.visible for item in items])
    assert visible.min() >= shapes.MIN_VISIBLE
    assert 0.05 < np.mean(visible < 0.95) < 0.4, "some overlap, not all"
    assert 0.005 < np.mean([item.difficult for item in items]) < 0.1
    assert 0.02 < np.mean([item.stencil.truncated for item in items]) < 0.15


def test_objects_stand_out_from_what_is_around_them(scenes):
    distances = []
    for image, objects in scenes:
        if len(objects) != 1:
            continue
        stencil = objects[0].stencil
        drawn, core = np.zeros(image.shape[:2], np.uint8), np.zeros(image.shape[:2], np.uint8)
        drawn[stencil.window], core[stencil.window] = stencil.coverage, stencil.inner
        ring = (cv2.dilate(drawn, np.ones((9, 9))) > 0) & (drawn == 0)
        distances.append(np.linalg.norm(image[core == 255].mean(0) - image[ring].mean(0)))
    assert len(distances) > 20
    assert min(distances) > 30


def test_same_parameters_give_the_same_bytes(root, tmp_path):
    again = shapes.make_shapes(tmp_path / "again", 30, 8, SIZE, seed=3)
    assert all_files(again) == all_files(root)
    other = shapes.make_shapes(tmp_path / "other", 1, 1, SIZE, seed=4)
    name = "JPEGImages/train_00000.jpg"
    assert (other / name).read_bytes() != (root / name).read_bytes()
    assert (other / name).read_bytes() != (other / name.replace("train", "val")).read_bytes()


def test_a_smaller_set_is_the_beginning_of_a_larger_one(root, tmp_path):
    small = all_files(shapes.make_shapes(tmp_path / "small", 3, 2, SIZE, seed=3))
    large = all_files(root)
    pictures = [name for name in small if name.startswith(("JPEGImages", "Annotations"))]
    assert len(pictures) == 10
    assert all(small[name] == large[name] for name in pictures)


def test_an_existing_set_is_reused_and_never_changed(root):
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert shapes.make_shapes(root, 30, 8, SIZE, seed=3) == root
    with pytest.raises(ValueError, match=r"'seed': 3.*asked for.*'seed': 9"):
        shapes.make_shapes(root, 30, 8, SIZE, seed=9)
    assert before == {path: path.stat().st_mtime_ns for path in root.rglob("*")}


def test_a_set_of_another_generator_is_refused(root, monkeypatch):
    marker = json.loads((root / shapes.MARKER).read_text())
    assert marker["generator_version"] == shapes.GENERATOR_VERSION
    parameters = shapes.Parameters(30, 8, SIZE, 3, generator_version=shapes.GENERATOR_VERSION + 1)
    with pytest.raises(ValueError, match="generator_version"):
        shapes._check_same(root, parameters)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/notes.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"mine.*shapes\.json"):
        shapes.make_shapes(tmp_path / "mine", 1, 1, SIZE)
    assert all_files(tmp_path / "mine") == {"notes.txt": b"keep"}
    (tmp_path / "mine" / shapes.MARKER).write_text("{broken")
    with pytest.raises(ValueError, match="expected the parameters as JSON"):
        shapes.make_shapes(tmp_path / "mine", 1, 1, SIZE)


def test_a_run_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("disk full")

    monkeypatch.setattr(shapes, "write_image", fail)
    with pytest.raises(RuntimeError, match="disk full"):
        shapes.make_shapes(tmp_path / "set", 2, 1, SIZE)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_train": 0}, "num_train"),
        ({"image_size": (32, 192)}, "image_size"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_parameters_are_named(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        shapes.make_shapes(tmp_path / "set", **change)


def test_the_command_makes_a_set(tmp_path, monkeypatch, capsys):
    sizes = ["--num-train", "2", "--num-val", "1", "--image-size", "64", "80"]
    monkeypatch.setattr("sys.argv", ["shapes", "--root", str(tmp_path / "set"), *sizes])
    shapes.main()
    assert "2 training and 1 validation" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "set/JPEGImages/train_00001.jpg")).shape == (64, 80, 3)
    monkeypatch.setattr("sys.argv", ["shapes", "--root", str(tmp_path / "set"), "--seed", "5"])
    with pytest.raises(ValueError, match="asked for"):
        shapes.main()
