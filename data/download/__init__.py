"""Datasets from their official places, verified, unpacked and counted.

    python -m data.download voc2007                   PASCAL VOC 2007, to datasets/VOCdevkit
    python -m data.download voc2012                   PASCAL VOC 2012, beside it
    python -m data.download coco2017 --parts val      COCO 2017, to datasets/coco; train is 19 GB
    python -m data.download crowdhuman                says what to fetch by hand and unpacks it

Run again after a cut it goes on where it was, and what is done is not done again.
"""

import argparse
import contextlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from utils.program import make_parser

import msgspec
from loguru import logger

from data.download.archives import extract, extracted, require_space
from utils.diary import diary
from utils.download import DownloadError, fetch

OUT = "datasets"  # below which the presets look
SHOWN = 10  # missing files named in a message


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
    urls: tuple[str, ...] = ()
    digests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Split:
    """A split as the config names it, and how many images its authors say it has."""

    name: str
    part: str
    images: int


@dataclass(frozen=True)
class Source:
    """A dataset to download. root: what becomes data.root, below the root of all datasets.

    expected_files(root, split): the images and annotation files that a split consists of by its
    own account; by_hand: where to get it if it has no public address; hint: follows the command.
    """

    root: str
    config: str
    archives: tuple[Archive, ...]
    splits: tuple[Split, ...]
    expected_files: Callable[[Path, str], tuple[list[Path], list[Path]]]
    by_hand: str = ""
    hint: str = ""

    @property
    def parts(self) -> tuple[str, ...]:
        return tuple(split.part for split in self.splits)


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


def _voc(year: str, name: str, part: str, size: int, md5: str, sha256: str) -> Archive:
    """An archive of the PASCAL VOC project, which publishes no digests.

    The MD5s are as recorded by torchvision (datasets/voc.py), sizes and SHA-256s by TensorFlow
    Datasets (url_checksums/voc.txt). The first address is the published one, the second is the same
    group's server.
    """
    path = f"robots.ox.ac.uk/pascal/VOC/{year}/{name}"
    return Archive(
        name,
        (part,),
        folder="",
        max_bytes=size,  # a tar is larger than what it holds
        max_files=50_000,
        size=size,
        urls=(f"http://host.{path}", f"https://thor.{path}"),
        digests=(f"md5:{md5}", f"sha256:{sha256}"),
    )


def _coco(path: str, parts: tuple[str, ...], size: int, max_bytes: int, *digests: str) -> Archive:
    """An archive of the COCO project, which publishes no digests.

    The MD5s are as recorded by PaddleDetection (ppdet/utils/download.py), the SHA-256s by
    torchvision (prototype/datasets/_builtin/coco.py). The second address is the same store's.
    """
    host = "images.cocodataset.org"
    return Archive(
        path.rpartition("/")[2],
        parts,
        folder="coco",
        max_bytes=max_bytes,
        max_files=120_000,
        size=size,
        urls=(f"http://{host}/{path}", f"https://s3.amazonaws.com/{host}/{path}"),
        digests=digests,
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
                "c52e279531787c972589f7e41ab4ae64",
                "7d8cd951101b0957ddfd7a530bdc8a94f06121cfc1e511bb5937e973020c7508",
            ),
            _voc(
                "voc2007",
                "VOCtest_06-Nov-2007.tar",
                "test",
                451_020_800,
                "b6e924de25625d8de591ea690078ad9f",
                "6836888e2e01dca84577a849d339fa4f73e1e4f135d312430c4856b5609b4892",
            ),
        ),
        splits=(
            Split("VOC2007/trainval", "trainval", 5011),
            Split("VOC2007/test", "test", 4952),
        ),
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
                "6cd6e144f989b92b3379bac3b3de84fd",
                "e14f763270cf193d0b5f74b169f44157a4b0c6efa708f4dd0ff78ee691763bcb",
            ),
        ),
        splits=(Split("VOC2012/trainval", "trainval", 11540),),  # of 17125 images: those with boxes
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
                "md5:f4bbac642086de4f52a3fdda2de5fa2c",
                "sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
            ),
            _coco(
                "zips/val2017.zip",
                ("val",),
                815_585_330,
                1_000_000_000,
                "md5:442b8da7639aecaf257c1dceb8ba8c80",
                "sha256:4f7e2ccb2866ec5041993c9cf2a952bbed69647b115d0f74da7ce8f4bef82f05",
            ),
            _coco(
                "zips/train2017.zip",
                ("train",),
                19_336_861_798,
                20_000_000_000,
                "md5:cced6f7f71b7629ddf16f17bbcfab6b2",
                "sha256:69a8bb58ea5f8f99d24875f21416de2e9ded3178e903f1f7603e283b9e06d929",
            ),
        ),
        splits=(Split("train2017", "train", 118287), Split("val2017", "val", 5000)),
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
        splits=(Split("train", "train", 15000), Split("val", "val", 4370)),
        expected_files=crowdhuman_files,
        by_hand="https://www.crowdhuman.org/download.html",
    ),
}


# ------------------------------------------------------------------------------------------------
# The command
# ------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None, sources: Mapping[str, Source] = SOURCES) -> None:
    """Runs the command line. Raises ValueError for what cannot be had or is not complete."""
    args = parse_arguments(argv, sources)
    source, out = sources[args.dataset], Path(args.out)
    parts = check_parts(args.parts or source.parts, source.parts)
    archives = [archive for archive in source.archives if set(archive.parts) & set(parts)]
    with diary():
        for archive in archives:
            get(archive, out, args.keep_archives)
        problems = verify(source, parts, out / source.root)
    if problems:
        wanted = request(source, archives, tuple(problems), out)
        raise ValueError(
            "\n".join([f"{args.dataset} is not complete", *problems.values(), *wanted])
        )
    command = f"python train.py --config {source.config}"
    if out != Path(OUT):
        command += f" --set {shlex.quote(f'data.root={out / source.root}')}"
    print(f"train with: {command}{source.hint and f'  ({source.hint})'}", flush=True)


def parse_arguments(argv: list[str] | None, sources: Mapping[str, Source]) -> argparse.Namespace:
    parser = make_parser(__doc__, "data.download")
    parser.add_argument("dataset", choices=sources)
    parser.add_argument("--out", default=OUT, help=f"the folder of all datasets, default {OUT}")
    parser.add_argument(
        "--parts", nargs="+", metavar="PART", help="trainval, test; train, val; default: all"
    )
    parser.add_argument(
        "--keep-archives", action="store_true", help="else they are deleted once unpacked"
    )
    args = parser.parse_args(argv)
    if args.keep_archives and sources[args.dataset].by_hand:
        parser.error(f"--keep-archives: those of {args.dataset} come by hand, and are kept anyway")
    return args


def check_parts(parts: tuple[str, ...], known: tuple[str, ...]) -> tuple[str, ...]:
    """The parts, each once. Raises ValueError for one that there is not."""
    for part in parts:
        if part not in known:
            raise ValueError(f"--parts: expected {' or '.join(known)}, got {part!r}")
    return tuple(dict.fromkeys(parts))


def get(archive: Archive, out: Path, keep: bool) -> None:
    """Fetches and unpacks an archive unless that was done; one to fetch by hand if it is there."""
    folder = out / archive.folder
    if extracted(archive.name, folder):
        logger.info("{}: unpacked already", archive.name)
        return
    path = archive_path(archive, out)
    if archive.urls:
        download(archive, path)
    elif not path.exists():
        return
    extract(path, folder, max_bytes=archive.max_bytes, max_files=archive.max_files)
    if archive.urls and not keep:
        path.unlink(missing_ok=True)
        path.with_name(f"{path.name}.sha256").unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # others may lie there
            path.parent.rmdir()


def archive_path(archive: Archive, out: Path) -> Path:
    """Where it lies until it is unpacked: what comes by hand beside the folder it unpacks to."""
    folder = out / "archives" if archive.urls else (out / archive.folder).parent
    return folder / archive.name


def download(archive: Archive, path: Path) -> None:
    """Makes the archive be at `path`, from the first address that has it."""
    part = path.with_name(f"{path.name}.part")
    there = next((file.stat().st_size for file in (path, part) if file.exists()), 0)
    needed = max(archive.size - there, 0) + archive.max_bytes
    require_space(path.parent, needed, f"{archive.name}, with what unpacks from it,")
    for url in archive.urls:
        try:
            fetch(url, path, digests=archive.digests)
            return
        except DownloadError as error:
            if path.exists() or url == archive.urls[-1]:
                raise
            # Its cause alone: what to do by hand is said once, when no address has it.
            logger.info("{}: {}; trying the next address", url, error.__cause__)


def verify(source: Source, parts: tuple[str, ...], root: Path) -> dict[str, str]:
    """Looks for every image and annotation file of the splits; {part: what is missing, as text}."""
    problems = {}
    for split in (split for split in source.splits if split.part in parts):
        try:
            images, annotations = source.expected_files(root, split.name)
        except FileNotFoundError as error:
            problems[split.part] = f"{split.name}: expected {error.filename}, found no such file"
            continue
        no_image = [path for path in images if not path.exists()]
        missing = no_image + [path for path in annotations if not path.exists()]
        found = len(images) - len(no_image)
        logger.info(
            "{}: {} images, {} expected; {} annotation files, {} expected",
            split.name,
            found,
            split.images,
            len(annotations) - len(missing) + len(no_image),
            len(annotations),
        )
        if missing:
            names = [str(path) for path in missing[:SHOWN]]
            more = [f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
            text = "\n  ".join([f"{split.name}: {len(missing)} missing", *names, *more])
            problems[split.part] = text
        elif found != split.images and not source.by_hand:  # whose archives no digest holds
            problems[split.part] = f"{split.name}: expected {split.images} images, found {found}"
    return problems


def request(
    source: Source, archives: list[Archive], parts: tuple[str, ...], out: Path
) -> list[str]:
    """What to fetch by hand for parts that are not complete: files neither there nor unpacked.

    Where the annotations are there, what is missing was named: images, that may come singly.
    """
    if not source.by_hand:
        return []
    root = out / source.root
    needed = [archive for archive in archives if set(archive.parts) & set(parts)]
    names = [a.name for a in needed if not extracted(a.name, out / a.folder)]
    labels = [f"annotation_{part}.odgt" for part in parts]
    wanted = [f"  {name}" for name in names + labels if not (root / name).exists()]
    if not wanted:
        return []
    singly = "put the missing files in their places, or "
    lead = singly if all((root / name).exists() for name in labels) else ""
    where = f"{lead}agree to the terms on {source.by_hand}, put these files into {root}"
    return [f"{where} and run this again:", *wanted]
