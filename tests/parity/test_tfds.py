"""A dataset that TFDS itself prepares, read beside TFDS's own reader."""

from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from data.files import read_data
from data.formats.tfds import read_tfds

pytestmark = pytest.mark.full


def test_as_tfds_itself_writes_and_reads_it(tmp_path):
    for name, size in (("a.png", (40, 30)), ("b.jpg", (64, 50)), ("c.png", (33, 77))):
        Image.new("RGB", size, (90, 120, 60)).save(tmp_path / name)
    boxes = {
        "a.png": [(0.5, 0.25, 1.0, 0.75), (0.0, 0.0, 0.1, 0.1)],
        "b.jpg": [],
        "c.png": [(0.2, 0.3, 0.4, 0.5)],
    }

    class Animals(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("2.0.1")
        pkg_dir_path = str(tmp_path)

        def _info(self):
            names, features = tfds.features.ClassLabel(names=["cat", "dog"]), tfds.features
            of_each = {"bbox": features.BBoxFeature(), "label": names, "is_difficult": np.bool_}
            return tfds.core.DatasetInfo(
                builder=self,
                features=features.FeaturesDict(
                    {
                        "image": features.Image(),
                        "image/filename": features.Text(),
                        "objects": features.Sequence(of_each),
                    }
                ),
            )

        def _split_generators(self, manager):
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for name, of_image in boxes.items():
                yield (
                    name,
                    {
                        "image": tmp_path / name,
                        "image/filename": name,
                        "objects": [
                            {
                                "bbox": tfds.features.BBox(*box),
                                "label": n % 2,
                                "is_difficult": n > 0,
                            }
                            for n, box in enumerate(of_image)
                        ],
                    },
                )

    builder = Animals(data_dir=tmp_path / "data")
    builder.download_and_prepare()
    dataset = read_tfds(Path(builder.data_dir), "train")
    assert dataset.classes == ("cat", "dog")
    expected = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert len(dataset) == len(expected) == 3
    for index, item in enumerate(expected):
        name = item["image/filename"].decode()
        assert dataset.image_ids[index] == Path(name).stem
        assert read_data(dataset.images[index], 2**20) == (tmp_path / name).read_bytes()
        height, width, _ = item["image"].shape
        assert dataset.sizes[index].tolist() == [width, height]
        ymin, xmin, ymax, xmax = item["objects"]["bbox"].T.astype(np.float64)
        pixels = np.stack([xmin * width, ymin * height, xmax * width, ymax * height], axis=1)
        rows = dataset.rows(index)
        np.testing.assert_allclose(dataset.boxes[rows], pixels, atol=1 / 2048)
        np.testing.assert_array_equal(dataset.labels[rows], item["objects"]["label"])
        np.testing.assert_array_equal(dataset.difficult[rows], item["objects"]["is_difficult"])
