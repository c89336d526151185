"""Where the public datasets are, what is known of their archives, what their splits consist of."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec


@dataclass(frozen=True)
class Archive:
    """An archive and what is known of it.

    parts: what of the dataset it is needed for. folder: where it is unpacked, below the root of all
    datasets. max_bytes, max_files: what unpacks from it at most. size: its bytes. urls: tried in
    order; none: it is fetched by hand.
    """

    name: str
    parts: tuple[str, ...]
    folder: str
    max_bytes: int
    max_files: int
    size: int = 0
    sha256: str = ""
    urls: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A dataset to download. root: what becomes data.root, below the root of all datasets.

    split: how the config names a part, which stands for "{}". images: how many images each part has
    by its authors' account. expected_files(root, split): the images and annotation files that a
    split consists of by its own. by_hand: where to get it if it has no public address. hint:
    follows the command.
    """

    root: str
    config: str
    archives: tuple[Archive, ...]
    split: str
    images: Mapping[str, int]
    expected_files: Callable[[Path, str], tuple[list[Path], list[Path]]]
    by_hand: str = ""
    hint: str = ""


# ------------------------------------------------------------------------------------------------
# What a split consists of
# ------------------------------------------------------------------------------------------------


class _CocoImage(msgspec.Struct):
    file_name: str


class _CocoFile(msgspec.Struct):
    images: list[_CocoImage]


class _CrowdHumanLine(msgspec.Struct):
    ID: str


def voc_files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Images and annotations of YEAR/SET, by ImageSets/Main."""
    year, _, image_set = split.partition("/")
    lines = (root / year / "ImageSets" / "Main" / f"{image_set}.txt").read_text("utf-8").split("\n")
    ids = [line.split()[0] for line in lines if line.strip()]
    images = [root / year / "JPEGImages" / f"{name}.jpg" for name in ids]
    return images, [root / year / "Annotations" / f"{name}.xml" for name in ids]


def coco_files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Images and annotation file of a split, by that file."""
    path = root / "annotations" / f"instances_{split}.json"
    try:
        content = msgspec.json.decode(path.read_bytes(), type=_CocoFile)
    except msgspec.MsgspecError as error:
        raise ValueError(f"{path}: {error}") from error
    return [root / split / image.file_name for image in content.images], [path]


def crowdhuman_files(root: Path, split: str) -> tuple[list[Path], list[Path]]:
    """Images and annotation file of a split, by that file."""
    path = root / f"annotation_{split}.odgt"
    ids = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), 1):
        if line.strip():
            try:
                ids.append(msgspec.json.decode(line, type=_CrowdHumanLine).ID)
            except msgspec.MsgspecError as error:
                raise ValueError(f"{path}, line {number}: {error}") from error
    images = [*root.glob("Images/*.jpg"), *root.glob(f"CrowdHuman_{split}*/Images/*.jpg")]
    found = {path.stem: path for path in images}
    return [found.get(name, root / "Images" / f"{name}.jpg") for name in ids], [path]


# ------------------------------------------------------------------------------------------------
# The datasets
# ------------------------------------------------------------------------------------------------


def _voc(year: str, name: str, part: str, size: int, sha256: str) -> Archive:
    """An archive of the PASCAL VOC project, which publishes no digests.

    Sizes and SHA-256s are as recorded by TensorFlow Datasets (url_checksums/voc.txt). The first
    address is the published one, the second is the same group's server.
    """
    path = f"robots.ox.ac.uk/pascal/VOC/{year}/{name}"
    return Archive(
        name,
        (part,),
        folder="",
        max_bytes=size,  # a tar is larger than what it holds
        max_files=50_000,
        size=size,
        sha256=sha256,
        urls=(f"http://host.{path}", f"https://thor.{path}"),
    )


def _coco(path: str, parts: tuple[str, ...], size: int, max_bytes: int, sha256: str) -> Archive:
    """An archive of the COCO project, which publishes no digests.

    The SHA-256s are as recorded by torchvision (prototype/datasets/_builtin/coco.py). The second
    address is the same store's.
    """
    host = "images.cocodataset.org"
    return Archive(
        path.rpartition("/")[2],
        parts,
        folder="coco",
        max_bytes=max_bytes,
        max_files=120_000,
        size=size,
        sha256=sha256,
        urls=(f"http://{host}/{path}", f"https://s3.amazonaws.com/{host}/{path}"),
    )


def _crowdhuman(name: str, part: str) -> Archive:
    """An archive of CrowdHuman: not public, so of unknown size and digest."""
    folder = f"crowdhuman/{name}"
    return Archive(f"{name}.zip", (part,), folder, max_bytes=10_000_000_000, max_files=20_000)


SOURCES = {
    "voc2007": Source(
        root="VOCdevkit",
        config="configs/voc.py",
        archives=(
            _voc(
                "voc2007",
                "VOCtrainval_06-Nov-2007.tar",
                "trainval",
                460_032_000,
                "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
            ),
            _voc(
                "voc2007",
                "VOCtest_06-Nov-2007.tar",
                "test",
                451_020_800,
                "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
            ),
        ),
        split="VOC2007/{}",
        images={"trainval": 5011, "test": 4952},
        expected_files=voc_files,
        hint="it takes voc2012, too; without it add --set data.train=VOC2007/trainval",
    ),
    "voc2012": Source(
        root="VOCdevkit",
        config="configs/voc.py",
        archives=(
            _voc(
                "voc2012",
                "VOCtrainval_11-May-2012.tar",
                "trainval",
                1_999_639_040,
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            ),
        ),
        split="VOC2012/{}",
        images={"trainval": 11540},  # of 17125: those with boxes
        expected_files=voc_files,
        hint="it takes voc2007, too; without it add --set data.train=VOC2012/train "
        "data.val=VOC2012/val",
    ),
    "coco2017": Source(
        root="coco",
        config="configs/coco.py",
        archives=(
            _coco(
                "annotations/annotations_trainval2017.zip",
                ("train", "val"),
                252_907_541,
                2_000_000_000,
                "113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
            _coco(
                "zips/val2017.zip",
                ("val",),
                815_585_330,
                1_000_000_000,
                "4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            _coco(
                "zips/train2017.zip",
                ("train",),
                19_336_861_798,
                20_000_000_000,
                "69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
        ),
        split="{}2017",
        images={"train": 118287, "val": 5000},
        expected_files=coco_files,
    ),
    "crowdhuman": Source(
        root="crowdhuman",
        config="configs/crowdhuman.py",
        archives=(
            _crowdhuman("CrowdHuman_train01", "train"),
            _crowdhuman("CrowdHuman_train02", "train"),
            _crowdhuman("CrowdHuman_train03", "train"),
            _crowdhuman("CrowdHuman_val", "val"),
        ),
        split="{}",
        images={"train": 15000, "val": 4370},
        expected_files=crowdhuman_files,
        by_hand="https://www.crowdhuman.org/download.html",
    ),
}
