"""Published weights: names, addresses, what is known of their hashes, the cache they come to."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.weights.importing import import_file
from core.weights.npz_files import Weights
from core.weights.torch_and_keras_files import INSTALL, WeightsError
from utils.download import fetch
from utils.files import cache_folder

TORCH = "https://download.pytorch.org/models/"
KERAS = "https://storage.googleapis.com/tensorflow/keras-applications/resnet/"
FIZYR = "https://github.com/fizyr/keras-retinanet/releases/download/0.5.1/"
BSD = "BSD-3-Clause (torchvision)"
APACHE = "Apache-2.0"


@dataclass(frozen=True)
class Published:
    """A file somebody published.

    name: what `model.weights` says. url: its address; the end is the file's name in the cache.
    digest: "sha256:..." (torch puts the first 8 digits into its file names) or "md5:..." (Keras);
        None: its publisher gives none, so it is recorded when the file first comes.
    mebibytes: size as published; None: it is not.
    licence: of the code it came with; the images it was trained on have terms of their own.
    ap: COCO AP as published, in percent; None: a backbone alone.
    """

    name: str
    url: str
    digest: str | None
    mebibytes: float | None
    licence: str
    ap: float | None = None

    @property
    def file(self) -> str:
        return self.url.rsplit("/", 1)[1]


# Sources: torchvision 0.27 (models/resnet.py, models/detection/retinanet.py), Keras 3.15
# (applications/resnet.py), the releases of keras-retinanet.
PUBLISHED = (
    Published(
        "coco-torchvision-v2", TORCH + "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth",
        "sha256:5905b1c5", 146.0, BSD, 41.5,
    ),
    Published(
        "coco-torchvision-v1", TORCH + "retinanet_resnet50_fpn_coco-eeacb38b.pth",
        "sha256:eeacb38b", 130.3, BSD, 36.4,
    ),
    Published(
        "coco-keras-retinanet", FIZYR + "resnet50_coco_best_v2.1.0.h5",
        None, None, APACHE, 35.0,
    ),
    *(
        Published(
            f"imagenet-resnet{depth}", f"{TORCH}resnet{depth}-{digest}.pth",
            f"sha256:{digest}", mebibytes, BSD,
        )
        for depth, digest, mebibytes in (
            (18, "f37072fd", 44.7), (34, "b627a593", 83.3), (50, "0676ba61", 97.8),
            (101, "63fe2227", 170.5), (152, "394f9c45", 230.4),
        )
    ),
    *(
        Published(
            f"imagenet-keras-resnet{depth}",
            f"{KERAS}resnet{depth}_weights_tf_dim_ordering_tf_kernels_notop.h5",
            f"md5:{digest}", mebibytes, APACHE,
        )
        for depth, digest, mebibytes in (
            (50, "4d473c1dd8becc155b73f8504c6f6626", 90.4),
            (101, "88cf7a10940856eca736dc7b7e228a21", 163.5),
            (152, "ee4c566cf9a93f14d82f913c2dc6dd0c", 223.8),
        )
    ),
)  # fmt: skip

SHORT = {"coco": "coco-torchvision-v2", "imagenet": "imagenet-{backbone}"}


def find(name: str, backbone: object = "resnet50") -> Published | None:
    """The published weights of a name, or None; "imagenet" are those of `backbone`."""
    name = SHORT[name].format(backbone=backbone) if name in SHORT else name
    return next((published for published in PUBLISHED if published.name == name), None)


def download(published: Published) -> Path:
    """The file in the cache, downloaded once and verified; raises what `fetch` does."""
    return fetch(published.url, cache_folder() / published.file, published.digest)


def open_weights(source: str, backbone: object = "resnet50", **options: Any) -> Weights:
    """Loads weights by published name, or from another project's file, an imported folder or a run.

    backbone: which one "imagenet" means. options: of `import_file`, for what is imported.
    Raises ValueError for what is neither, and what download and import raise.
    """
    if published := find(source, backbone):
        if published.file.endswith(".pth") and not importlib.util.find_spec("torch"):
            raise WeightsError(f"{source}: {published.file} can only be read with torch: {INSTALL}")
        return import_file(download(published), **options)
    if source in SHORT:
        raise WeightsError(
            f"{source}: expected a ResNet of ours as model.backbone, found {backbone}"
        )
    path = Path(source)
    if not path.exists():
        names = ", ".join([*SHORT, *(published.name for published in PUBLISHED)])
        raise WeightsError(f"{source}: expected a file, a run or one of {names}")
    if path.is_dir() or path.suffix == ".npz":
        if options:
            raise WeightsError(f"{source}: is ours already: use it as it is")
        return Weights.load(path)
    return import_file(path, **options)
