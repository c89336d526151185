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
from collections.abc import Mapping
from pathlib import Path
from utils.program import make_parser, run_program

from loguru import logger

from data.download.archives import extract, extracted, require_space
from data.download.sources import SOURCES, Archive, Source
from utils.diary import diary
from utils.download import DownloadError, fetch

OUT = "datasets"  # below which the presets look
SHOWN = 10  # missing files named in a message


def main(argv: list[str] | None = None, sources: Mapping[str, Source] = SOURCES) -> None:
    """Runs the command line. Raises ValueError for what cannot be had or is not complete."""
    args = parse_arguments(argv, sources)
    source, out = sources[args.dataset], Path(args.out)
    parts = [part for part in source.images if part in args.parts]
    archives = [archive for archive in source.archives if set(archive.parts) & set(parts)]
    with diary():
        for archive in archives:
            get(archive, out, args.keep_archives)
        problems = verify(source, parts, out / source.root)
    if problems:
        wanted = request(source, archives, list(problems), out)
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
    known = sources[args.dataset].images
    args.parts = args.parts or list(known)
    for part in args.parts:
        if part not in known:
            raise ValueError(f"--parts: expected {' or '.join(known)}, got {part!r}")
    if args.keep_archives and sources[args.dataset].by_hand:
        parser.error(f"--keep-archives: those of {args.dataset} come by hand, and are kept anyway")
    return args


def get(archive: Archive, out: Path, keep: bool) -> None:
    """Fetches and unpacks an archive unless that was done; one to fetch by hand if it is there."""
    folder = out / archive.folder
    if extracted(archive.name, folder):
        logger.info("{}: unpacked already", archive.name)
        return
    # What comes by hand lies beside the folder it unpacks to.
    path = (out / "archives" if archive.urls else folder.parent) / archive.name
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


def download(archive: Archive, path: Path) -> None:
    """Makes the archive be at `path`, from the first address that has it."""
    part = path.with_name(f"{path.name}.part")
    there = next((file.stat().st_size for file in (path, part) if file.exists()), 0)
    needed = max(archive.size - there, 0) + archive.max_bytes
    require_space(path.parent, needed, f"{archive.name}, with what unpacks from it,")
    for url in archive.urls:
        try:
            fetch(url, path, f"sha256:{archive.sha256}")
            return
        except DownloadError as error:
            if path.exists() or url == archive.urls[-1]:
                raise
            # Its cause alone: what to do by hand is said once, when no address has it.
            logger.info("{}: {}; trying the next address", url, error.__cause__)


def verify(source: Source, parts: list[str], root: Path) -> dict[str, str]:
    """Looks for every image and annotation file of the parts; {part: what is missing, as text}."""
    problems = {}
    for part in parts:
        split, expected = source.split.format(part), source.images[part]
        try:
            images, annotations = source.expected_files(root, split)
        except FileNotFoundError as error:
            problems[part] = f"{split}: expected {error.filename}, found no such file"
            continue
        no_image = [path for path in images if not path.exists()]
        no_annotation = [path for path in annotations if not path.exists()]
        found = len(images) - len(no_image)
        logger.info(
            "{}: {} images, {} expected; {} annotation files, {} expected",
            split,
            found,
            expected,
            len(annotations) - len(no_annotation),
            len(annotations),
        )
        if missing := no_image + no_annotation:
            names = [str(path) for path in missing[:SHOWN]]
            more = [f"and {len(missing) - SHOWN} more"] if len(missing) > SHOWN else []
            problems[part] = "\n  ".join([f"{split}: {len(missing)} missing", *names, *more])
        elif found != expected and not source.by_hand:  # whose archives no digest holds
            problems[part] = f"{split}: expected {expected} images, found {found}"
    return problems


def request(source: Source, archives: list[Archive], parts: list[str], out: Path) -> list[str]:
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


if __name__ == "__main__":
    run_program(main)
