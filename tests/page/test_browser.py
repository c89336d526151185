"""The page in a real browser: a picture in, boxes on it, and what a visitor does with them.

Needs Chromium on the PATH. With REQUIRE_BROWSER=1 a test that cannot run has failed.
"""

import base64
import os
import shutil

import cv2
import numpy as np
import pytest

from data.images.decode import decode_image
from utils.draw import class_colors

pytestmark = pytest.mark.slow

REQUIRED = os.environ.get("REQUIRE_BROWSER") == "1"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
COLORS = class_colors(2)
SHOWN = 3  # of the four detections, those of at least 0.3
# Of the frame that the detector in conftest.py finds best, a star.
BEST = (20, 30, 60, 90)
# Of the picture as the browser shows it: points in its pixels -> RGBA of each.
COLORS_SHOWN = """points => {
    const image = document.querySelector("#figure img");
    const canvas = new OffscreenCanvas(image.naturalWidth, image.naturalHeight);
    const context = canvas.getContext("2d");
    context.drawImage(image, 0, 0);
    return points.map(([x, y]) => [...context.getImageData(x, y, 1, 1).data]);
}"""


def cannot_run(why):
    message = f"{why} (pip install playwright; Debian: apt-get install chromium)"
    if REQUIRED:
        pytest.fail(f"REQUIRE_BROWSER=1, but {message}")
    pytest.skip(message)


@pytest.fixture(scope="module")
def browser():
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError as error:
        cannot_run(error)
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        cannot_run(f"none of {', '.join(BROWSERS)} is on the PATH")
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=program, args=quiet) as browser,
    ):
        yield browser


@pytest.fixture
def page(browser, served):
    """The page, opened; whatever it asks of another server or complains of is an error."""
    with browser.new_context(viewport={"width": 1000, "height": 800}) as context:
        page = context.new_page()
        page.set_default_timeout(10_000)
        asked, complaints = [], []
        page.on("request", lambda request: asked.append(request.url))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.extend([said.text] * (said.type == "error")))
        page.address = f"http://127.0.0.1:{served.port}/"
        page.asked = asked
        page.goto(page.address)
        yield page
        ours = (page.address, "blob:", "data:")
        assert [url for url in asked if not url.startswith(ours)] == []
        # Chromium notes each answer of 400 and above, or none at all; the page shows them.
        assert [text for text in complaints if "Failed to load resource" not in text] == []


def hand_over(page, kind, files):
    """Drops or pastes (name, type, bytes) onto the page."""
    page.evaluate(
        """([kind, files]) => {
            const transfer = new DataTransfer();
            for (const [name, type, text] of files) {
                const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt());
                transfer.items.add(new File([bytes], name, {type}));
            }
            const init = {bubbles: true, cancelable: true};
            document.body.dispatchEvent(kind === "drop"
                ? new DragEvent("drop", {...init, dataTransfer: transfer})
                : new ClipboardEvent("paste", {...init, clipboardData: transfer}));
        }""",
        [kind, [[name, mime, base64.b64encode(data).decode()] for name, mime, data in files]],
    )


def drop(page, data, name="cells.png", mime="image/png"):
    hand_over(page, "drop", [(name, mime, data)])


def settled(page, num_shown=SHOWN):
    """Waits until so many detections are listed."""
    from playwright.sync_api import expect

    expect(page.locator("#list li")).to_have_count(num_shown)


def drawn(page, x, y):
    """RGBA of the canvas over the picture, at a point in pixels of the picture."""
    return page.evaluate(
        """([x, y]) => {
            const canvas = document.getElementById("boxes");
            const scale = canvas.width / document.querySelector("#figure img").naturalWidth;
            const at = side => Math.floor(side * scale);
            return [...canvas.getContext("2d").getImageData(at(x), at(y), 1, 1).data];
        }""",
        [x, y],
    )


def has_frame(page, box, label):
    """Whether the middles of a frame's lower and right side are in the class's colour."""
    x1, _, x2, y2 = box
    expected = [*COLORS[label].tolist(), 255]
    return drawn(page, (x1 + x2) / 2, y2) == drawn(page, x2, y2 - 3) == expected


# ------------------------------------------------------------------------------------------------
# A picture comes in
# ------------------------------------------------------------------------------------------------


def test_a_dropped_picture_gets_its_boxes_and_a_list(page, picture):
    assert page.locator("#save").is_disabled()
    drop(page, picture())
    settled(page)
    assert has_frame(page, BEST, label=1)
    assert has_frame(page, (100, 20, 180, 70), label=0)
    assert not has_frame(page, (150, 75, 190, 95), label=0)  # 0.1 is below the threshold
    assert drawn(page, 80, 80)[3] == 0  # beside all boxes
    assert page.inner_text("#count") == "3 of 4 detections"
    assert page.inner_text("#list li:first-child").split() == (
        ["star", "0.90", "20,", "30", "–", "60,", "90"]
    )  # fmt: skip
    assert page.inner_text("#caption").startswith("cells.png, 200 × 100 pixels, ")
    assert page.locator("#wrong").is_hidden()


def test_what_is_seen_has_the_box_on_the_picture(page, picture, tmp_path):
    """A screenshot: between the canvas's pixels and the eye lies the style sheet."""
    file = tmp_path / "cells.bmp"
    file.write_bytes(picture(suffix=".bmp"))
    drop(page, file.read_bytes(), "cells.bmp", "image/bmp")
    settled(page)
    shot = cv2.imdecode(np.frombuffer(page.locator("#figure").screenshot(), np.uint8), -1)
    scale = shot.shape[1] / 200
    assert shot.shape[0] == pytest.approx(100 * scale, abs=1)
    around = [int(side * scale) for side in (90, 40)]  # the lower side of the best box
    window = shot[tuple(np.s_[middle - 2 : middle + 3] for middle in around)][..., 2::-1]
    assert abs(window - COLORS[1].astype(int)).max(axis=2).min() <= 2
    beside = shot[int(85 * scale), int(75 * scale), 2::-1]
    assert abs(beside - decode_image(file)[85, 75].astype(int)).max() <= 2


def test_pasting_choosing_by_keyboard_and_choosing_the_same_again(page, picture):
    given = {"name": "chosen.png", "mimeType": "image/png", "buffer": picture()}
    # Early: Chromium takes a while before it leaves choosing to playwright.
    page.on("filechooser", lambda chooser: chooser.set_files(given))
    hand_over(page, "paste", [("image.png", "image/png", picture())])
    settled(page)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "choose"
    for _ in range(2):
        with page.expect_response("**/detect"):
            page.keyboard.press("Enter")
        page.locator("#busy").wait_for(state="hidden")
    settled(page)
    assert page.inner_text("#caption").startswith("chosen.png")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_the_browser_turns_a_picture_as_the_detector_does(suffix, page, picture, tmp_path):
    """Of each EXIF orientation all blocks of colour are where `decode_image` has them."""
    for orientation in range(1, 9):
        data = picture(200, 100, suffix, orientation)
        file = tmp_path / f"{orientation}{suffix}"
        file.write_bytes(data)
        with page.expect_response("**/detect"):
            drop(page, data, file.name, f"image/{'jpeg' if suffix == '.jpg' else 'png'}")
        settled(page)
        pixels = decode_image(file)
        height, width = pixels.shape[:2]
        at = lambda side, block: side * block // 4 + side // 8  # noqa: E731
        assert page.inner_text("#caption").startswith(f"{file.name}, {width} × {height} pixels")
        assert page.locator("#wrong").is_hidden()
        middles = [(at(width, x), at(height, y)) for x in range(4) for y in range(4)]
        seen = np.array(page.evaluate(COLORS_SHOWN, middles))[:, :3]
        expected = pixels[tuple(np.array(middles).T[::-1])].astype(int)
        assert abs(seen - expected).max() <= 4, orientation


def test_what_is_no_picture_gets_a_message_and_the_picture_stays(page, picture):
    drop(page, picture())
    settled(page)
    drop(page, b"hello, world", "notes.txt", "text/plain")
    page.locator("#wrong").wait_for(state="visible")
    message = "notes.txt: expected a JPEG, PNG, BMP, WebP, TIFF or GIF image, found b'hello, world'"
    assert page.inner_text("#wrong") == message
    settled(page)
    assert has_frame(page, BEST, label=1)
    hand_over(page, "paste", [])
    assert page.inner_text("#wrong") == "expected an image file, found none"
    drop(page, picture())
    page.locator("#wrong").wait_for(state="hidden")


def test_a_file_that_is_too_large_is_not_even_sent(page):
    asked = len(page.asked)
    drop(page, bytes(1_100_000), "huge.png")
    page.locator("#wrong").wait_for(state="visible")
    assert page.inner_text("#wrong") == "huge.png: expected at most 1 MB, found 1.1"
    assert [url for url in page.asked[asked:] if url.startswith("http")] == []


def test_while_it_works_it_says_so_and_only_the_last_picture_counts(page, picture, told):
    told.may_go.clear()
    drop(page, picture(), "first.png")
    page.locator("#busy").wait_for(state="visible")
    page.locator("#figure img").wait_for(state="visible")
    assert page.locator("#save").is_disabled()
    drop(page, picture(100, 200), "second.png")
    page.locator("#caption", has_text="second.png").wait_for()
    told.may_go.set()
    page.locator("#busy").wait_for(state="hidden")
    settled(page)
    assert page.inner_text("#caption").startswith("second.png, 100 × 200 pixels, ")
    assert page.locator("#wrong").is_hidden()


def test_a_picture_that_is_slow_to_open_does_not_come_after_the_next(page, picture):
    page.evaluate(
        """() => {
            const decode = HTMLImageElement.prototype.decode;
            let delay = 300;  // milliseconds, of the first picture
            HTMLImageElement.prototype.decode = async function () {
                const mine = delay;
                delay = 0;
                await new Promise(done => setTimeout(done, mine));
                return decode.call(this);
            };
        }"""
    )
    drop(page, picture(), "slow.png")
    drop(page, picture(), "quick.png")
    settled(page)
    page.wait_for_timeout(500)  # by then the slow one is open
    settled(page)
    assert page.inner_text("#caption").startswith("quick.png")


def test_a_server_that_is_gone_or_fails_is_said_and_the_picture_stays(page, picture, told, served):
    told.error = RuntimeError("out of luck")
    drop(page, picture())
    page.locator("#wrong").wait_for(state="visible")
    assert "internal error" in page.inner_text("#wrong")
    assert page.locator("#figure img").is_visible()
    page.route("**/detect", lambda route: route.abort())
    drop(page, picture())
    page.locator("#wrong", has_text="no answer: is python -m page still running?").wait_for()
    assert page.locator("#save").is_disabled()


# ------------------------------------------------------------------------------------------------
# What a visitor does with the boxes
# ------------------------------------------------------------------------------------------------


def test_the_slider_filters_at_once_and_asks_nobody(page, picture):
    drop(page, picture())
    settled(page)
    asked = len(page.asked)
    slider = page.locator("#threshold")
    assert (slider.get_attribute("min"), slider.input_value()) == ("0.05", "0.3")
    slider.fill("0.6")
    assert page.inner_text("#count") == "1 of 4 detections"
    assert has_frame(page, BEST, label=1)
    assert drawn(page, 140, 70)[3] == 0
    slider.fill("0.05")
    assert page.inner_text("#count") == "4 of 4 detections"
    assert has_frame(page, (150, 75, 190, 95), label=0)
    slider.focus()
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#value") == "0.06"
    slider.fill("1")
    assert page.inner_text("#count") == "0 of 4 detections"
    assert page.asked[asked:] == []


def test_classes_can_be_left_out(page, picture):
    drop(page, picture())
    settled(page)
    page.get_by_label("star").uncheck()
    assert page.inner_text("#count") == "1 of 4 detections"
    assert drawn(page, 40, 90)[3] == 0
    drop(page, picture(), "another.png")  # the choice stays for the next picture
    page.locator("#caption", has_text="another.png").wait_for()
    settled(page, 1)
    page.get_by_label("star").check()
    settled(page)


def test_an_item_of_the_list_points_at_its_box_and_the_box_at_it(page, picture):
    drop(page, picture())
    settled(page)
    inside = (30, 80)  # of the best box
    assert drawn(page, *inside)[3] == 0
    page.hover("#list li:first-child")
    assert drawn(page, *inside)[:3] == pytest.approx(COLORS[1].tolist(), abs=4)
    assert drawn(page, 140, 70)[3] < 128  # the others step back
    page.mouse.move(5, 5)
    assert drawn(page, *inside)[3] == 0
    page.focus("#list li:first-child button")
    assert drawn(page, *inside)[3] > 0
    area = page.locator("#boxes").bounding_box()
    scale = area["width"] / 200
    page.mouse.move(area["x"] + 120 * scale, area["y"] + 50 * scale)  # the smaller of two
    pointed = page.locator("#list li", has=page.locator(".on"))
    assert "0.35" in pointed.inner_text()


@pytest.mark.parametrize(("mime", "suffix"), [("image/png", ".png"), ("image/jpeg", ".jpg")])
def test_the_saved_picture_is_the_whole_one_with_the_boxes_that_are_shown(
    mime, suffix, page, picture, tmp_path
):
    data = picture(2000, 1000, suffix)  # the boxes lie in its upper left corner
    file = tmp_path / f"street{suffix}"
    file.write_bytes(data)
    drop(page, data, file.name, mime)
    settled(page)
    page.locator("#threshold").fill("0.6")
    with page.expect_download() as download:
        page.click("#save")
    assert download.value.suggested_filename == f"street_detections{suffix}"
    download.value.save_as(tmp_path / "saved")
    before, saved = decode_image(file).astype(int), decode_image(tmp_path / "saved").astype(int)
    assert saved.shape == before.shape
    assert abs(saved[90, 40] - COLORS[1]).max() <= 12
    away = np.s_[200:, 200:]
    assert abs(saved[away] - before[away]).mean() < 1
    assert abs(saved[70, 105:175] - before[70, 105:175]).mean() < 4  # below the threshold


# ------------------------------------------------------------------------------------------------
# Light, dark, wide, narrow
# ------------------------------------------------------------------------------------------------


def luminance(color):
    linear = np.array([int(part) / 255 for part in color[4:-1].split(",")])
    linear = np.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    return linear @ (0.2126, 0.7152, 0.0722)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 1400])
def test_legible_in_light_and_dark_and_no_wider_than_the_window(scheme, width, page, picture):
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 700})
    drop(page, picture(), "a_long_name_without_any_place_to_break_it_" * 4 + ".png")
    settled(page)
    drop(page, b"x" * 200, "another_long_name_without_any_place_to_break_it" * 4)
    page.locator("#wrong").wait_for(state="visible")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    style = "(element, name) => getComputedStyle(element)[name]"
    ground = luminance(page.locator("body").evaluate(style, "backgroundColor"))
    assert (ground < 0.1) == (scheme == "dark")
    for name in ("body", "#caption", "#choose", "#wrong", "#list .faint"):
        ink = luminance(page.locator(name).first.evaluate(style, "color"))
        light, dark = max(ink, ground), min(ink, ground)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name
    figure, aside = (page.locator(name).bounding_box() for name in ("#figure", "aside"))
    is_beside = aside["x"] >= figure["x"] + figure["width"]
    assert is_beside == (width > 800)
