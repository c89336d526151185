"""The diary: what reaches the screen, what the file, and with which characters."""

import errno
import io
import re

import pytest
from loguru import logger
from rich.console import Console

from utils import __version__
from utils import diary as module
from utils.diary import diary, progress_bar, versions

pytestmark = pytest.mark.quick


@pytest.fixture
def screen(monkeypatch):
    """What the terminal would show."""
    stream = io.StringIO()
    monkeypatch.setattr(module, "console", Console(file=stream, width=80))
    return stream


@pytest.fixture
def file(tmp_path):
    return tmp_path / "diary.log"


def test_lines_reach_screen_and_file(screen, file):
    with diary(file):
        logger.info("epoch {}: loss {:.2f}", 3, 0.5)
        logger.debug("details")
        logger.warning("careful")
    shown, written = screen.getvalue().splitlines(), file.read_text(encoding="utf-8").splitlines()
    assert [line.split(" ", 1)[1] for line in shown] == ["epoch 3: loss 0.50", "careful"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d INFO    epoch 3: loss 0.50", written[0])
    assert [line.split()[2] for line in written] == ["INFO", "DEBUG", "WARNING"]


@pytest.mark.parametrize(
    "text",
    [
        "[red]not red[/red]",
        "runs/a[1]/b",
        "closing [/] nothing",
        "a:warning:b and :smile:",
        "braces {} {x} <b> </b>",
        "back\\slash\\",
        "x" * 300,
        "grün, 画像",
    ],
)
def test_text_comes_out_as_it_went_in(screen, file, text):
    """Paths and class names may look like markup, emoji codes or format strings."""
    with diary(file):
        logger.info(text)
        logger.info("{}", text)
    assert [line.split(" ", 1)[1] for line in screen.getvalue().splitlines()] == [text] * 2
    written = file.read_text(encoding="utf-8").splitlines()
    assert [line.split("INFO    ")[1] for line in written] == [text] * 2


def test_an_exception_goes_on_and_its_way_is_in_the_file(screen, file):
    """The screen gets the message from whoever catches it, not a page of frames."""

    def culprit():
        logger.info("before")
        raise ValueError("expected 1, found [red]")

    with pytest.raises(ValueError, match="expected 1"), diary(file):
        culprit()
    written = file.read_text(encoding="utf-8")
    assert "DEBUG   ValueError: expected 1, found [red]" in written
    assert "Traceback (most recent call last)" in written
    assert "in culprit" in written
    assert screen.getvalue().endswith("before\n")
    assert "Traceback" not in screen.getvalue()


def test_a_resumed_run_appends(screen, file):
    for text in ("first", "second"):
        with diary(file):
            logger.info(text)
    assert [line.split()[-1] for line in file.read_text().splitlines()] == ["first", "second"]


def test_afterwards_nothing_is_written(screen, file):
    with diary(file):
        logger.info("inside")
    logger.info("outside")
    assert "outside" not in file.read_text() + screen.getvalue()


def test_without_a_file_there_is_the_screen(screen, tmp_path):
    with diary():
        logger.info("only here")
    assert screen.getvalue().endswith("only here\n")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def full(monkeypatch):
    """A list of how many bytes fit the disk from now on; while it is empty, all do."""
    room = []
    monkeypatch.setattr(module, "open", lambda *args, **kwargs: Full(room, *args), raising=False)
    return room


class Full(io.FileIO):
    """A file on a disk that is full after the bytes of `room`."""

    def __init__(self, room, path, mode):
        super().__init__(path, mode)
        self.room = room

    def write(self, data):
        if self.room:
            if not self.room[0]:
                raise OSError(errno.ENOSPC, "No space left on device")
            data = data[: self.room[0]]
            self.room[0] -= len(data)
        return super().write(data)


def test_a_full_disk_is_told_once_and_later_lines_are_tried_again(screen, file, full, capsys):
    """What fits only in part is not left there: a line is whole or missing."""
    with diary(file):
        logger.info("one")
        full[:] = [10]
        logger.info("two")
        logger.info("three")
        full.clear()
        logger.info("four")
    written = [line.split("INFO    ")[-1] for line in file.read_text().splitlines()]
    assert written == ["one", "(2 lines are missing here: they could not be written)", "four"]
    shown = screen.getvalue()
    assert shown.count(f"{file}: cannot be written: No space left on device; ") == 1
    assert "the older file is still whole" in shown
    assert all(f"{text}\n" in shown for text in ("one", "two", "three", "four"))
    assert capsys.readouterr().err == ""  # nothing of loguru's own


@pytest.mark.parametrize("what", ["folder", "file"])
def test_a_diary_that_cannot_be_opened_ends_nothing(screen, tmp_path, capsys, what):
    path = tmp_path / "run" / "diary.log"
    if what == "folder":
        path.mkdir(parents=True)
    else:
        path.parent.write_text("a file")
    with diary(path):
        logger.info("on the screen")
    assert f"{path}: cannot be written: " in screen.getvalue()
    assert "on the screen\n" in screen.getvalue()
    assert capsys.readouterr().err == ""


def test_a_path_that_is_not_in_utf8_is_written_escaped(screen, file, monkeypatch, capsys):
    monkeypatch.setattr(module, "_show", lambda text: None)
    with diary(file):
        logger.info("images/\udcff.jpg")
    assert file.read_text().endswith("images/\\udcff.jpg\n")
    assert capsys.readouterr().err == ""


def test_versions_name_what_a_result_depends_on():
    line = versions()
    assert line.startswith(f"project {__version__}, Python 3.")
    assert re.search(r"Python 3\.\d+\.\d+", line)
    for package in ("tensorflow", "keras", "numpy", "opencv-python-headless"):
        assert re.search(rf"{package} \d+\.\d+", line)


def test_the_progress_bar_shows_the_text_of_a_step():
    with progress_bar() as bar:
        task = bar.add_task("epoch 1/2", total=4, text="")
        bar.update(task, completed=2, text="loss 0.123")
        stream = io.StringIO()
        Console(file=stream, width=100).print(bar.get_renderable())
    assert "epoch 1/2" in stream.getvalue()
    assert "2/4" in stream.getvalue()
    assert "loss 0.123" in stream.getvalue()


def test_what_moves_a_cursor_is_shown_as_its_escape(screen, file):
    """A file may be called so."""
    with diary(file):
        logger.info("{}: read", "gone\x1b[2J\x9b1A\u202e.jpg")
        logger.info("two\nlines of the program")
    for text in (screen.getvalue(), file.read_text(encoding="utf-8")):
        assert "gone\\x1b[2J\\x9b1A\\u202e.jpg: read\n" in text
        assert "two\nlines of the program\n" in text
