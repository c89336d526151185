"""Image files beside those that were read: counted by folder, the first few named."""

import numpy as np
import pytest

from data.doctor.unlisted import MAX_NAMED, unlisted_images
from data.records import Defects, assemble

pytestmark = pytest.mark.quick


def dataset_of(*images):
    return assemble(
        "set",
        ("cat",),
        images=[str(image) for image in images],
        image_ids=[str(image) for image in images],
        sizes=np.array([[9, 9]] * len(images)),
        image_index=np.zeros(0, int),
        boxes=np.zeros((0, 4)),
        labels=[],
        defects=Defects(),
    )


@pytest.fixture
def folders(tmp_path):
    """a/0.jpg to a/8.jpg, b/0.jpg, and files that are no images of ours."""
    for name in (*(f"a/{i}.jpg" for i in range(9)), "b/0.jpg", "a/0.txt", "a/._0.jpg", "c/0.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_splits_that_share_a_folder_count_together(folders):
    a = [folders / "a" / f"{i}.jpg" for i in range(9)]
    train, val = dataset_of(*a[:2], folders / "b/0.jpg"), dataset_of(a[2])
    (found,) = unlisted_images({"train": train, "val": val}, [])
    assert (found.severity, found.file) == ("note", str(folders / "a"))
    assert found.message == (
        f"{folders / 'a'}: 6 images beside those of train + val: "
        "3.jpg, 4.jpg, 5.jpg, 6.jpg, 7.jpg and 1 more"
    )
    assert MAX_NAMED == 5
    assert unlisted_images({"train": dataset_of(*a)}, []) == []


def test_what_is_reported_already_is_not_reported_again(folders):
    a = [folders / "a" / f"{i}.jpg" for i in range(9)]
    (found,) = unlisted_images({"train": dataset_of(*a[:6])}, [str(a[6])])
    assert found.message.endswith(": 2 images beside those of train: 7.jpg, 8.jpg")
