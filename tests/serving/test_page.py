"""The page in a real browser, before a real server with a tiny bundle."""

import io
import re
import threading
import time

import numpy as np
import pytest
import requests
import uvicorn
from PIL import Image

from synfer_ray.config import ServeConfig, VoteConfig
from synfer_ray.serving.page import PAGE
from synfer_ray.serving.rest import rest_app
from synfer_ray.serving.service import CalibratorService
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face
from tests.serving.browser import running_browser
from tests.tiny_bundle import save_tiny_bundle

TOKEN = "faces-only"
SHOWN = """(() => {
  const article = document.querySelector("article");
  const text = (selector) => article.querySelector(selector).textContent;
  const all = (element, selector) => [...element.querySelectorAll(selector)];
  return {
    rows: all(article, "tr").map((row) => [
      row.querySelector("th").textContent,
      ...all(row, ".track > div").map((bar) => parseFloat(bar.style.width)),
    ]),
    label: text("h2"),
    decision: text(".decision"),
    legend: all(article, ".legend li").map((entry) => entry.textContent),
    attention: article.querySelector(".attention").naturalWidth,
  };
})()"""
"""What stands in the first result: bars as widths in percent, the average before the voters."""


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    bundle = save_tiny_bundle(tmp_path_factory.mktemp("page") / "tiny")
    patch = pytest.MonkeyPatch()
    patch.setenv("PAGE_TOKEN", TOKEN)
    vote = VoteConfig(on_mismatch="keep_soft")
    service = CalibratorService(ServeConfig(bundle=str(bundle), vote=vote, token_env="PAGE_TOKEN"), {})
    patch.undo()
    server = uvicorn.Server(uvicorn.Config(rest_app(service), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


@pytest.fixture
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faces")
    for name, index in (("one.png", 1), ("two.png", 2)):
        face(index, 40).save(folder / name)
    (folder / "no-image.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    return folder


def test_faces_are_judged_and_shown(browser, url, faces):
    browser.open(url)
    browser.evaluate(f"document.getElementById('token').value = '{TOKEN}'")
    browser.evaluate("document.getElementById('label').value = 'sad'")
    browser.choose_files("#files", [faces / "one.png", faces / "two.png"])
    browser.wait_for("document.querySelectorAll('article table').length === 2")
    browser.wait_for("[...document.querySelectorAll('.attention')].every((image) => image.complete)")

    answer = requests.post(
        f"{url}/v1/calibrate?label=sad",
        data=(faces / "one.png").read_bytes(),
        headers={"Authorization": f"Bearer {TOKEN}", "Content-Type": "image/png"},
        timeout=60,
    ).json()["results"][0]
    shown = browser.evaluate(SHOWN)
    assert [row[0] for row in shown["rows"]] == list(EXPRESSIONS)
    for expression, average, *voters in shown["rows"]:
        width = 100 * answer["probabilities"][expression]
        assert average == pytest.approx(width, abs=0.01)
        opinions = [100 * opinion[expression] for opinion in answer["voters"].values()]
        assert voters == pytest.approx(opinions, abs=0.01)
    assert shown["label"] == answer["label"]
    assert shown["legend"] == ["feranno", "residual", "separable"]
    expected = {"agree": "label sad confirmed", "keep_soft": "label sad not confirmed; kept as probabilities"}
    assert shown["decision"] == expected[answer["decision"]]
    assert shown["attention"] >= 192, "the overlay has pixels"
    assert browser.complaints() == []
    addresses = {address.split("?")[0] for address in browser.requests()}
    local = re.compile(rf"{re.escape(url)}/(v1/calibrate)?$|blob:{re.escape(url)}|data:")
    assert all(local.match(address) for address in addresses), "nothing comes from elsewhere"


def test_a_face_is_dropped(browser, url):
    browser.open(url)
    browser.evaluate(f"document.getElementById('token').value = '{TOKEN}'")
    browser.evaluate(
        """(async () => {
          const canvas = new OffscreenCanvas(40, 40);
          canvas.getContext("2d").fillRect(10, 10, 20, 20);
          const files = new DataTransfer();
          files.items.add(new File([await canvas.convertToBlob()], "square.png"));
          const event = new DragEvent("drop", { dataTransfer: files, cancelable: true });
          document.querySelector(".drop").dispatchEvent(event);
          if (!event.defaultPrevented) throw new Error("the browser would open the file itself");
        })()"""
    )
    browser.wait_for("document.querySelector('article table') !== null")
    assert browser.evaluate("document.querySelector('.name').textContent") == "square.png"


def test_a_bad_file_spoils_no_other(browser, url, faces):
    browser.open(url)
    browser.evaluate(f"document.getElementById('token').value = '{TOKEN}'")
    browser.choose_files("#files", [faces / "no-image.png", faces / "one.png"])
    browser.wait_for("document.querySelectorAll('article table, article [role=alert]').length === 2")
    assert browser.evaluate("document.querySelectorAll('article table').length") == 1
    assert "400: 'no-image.png': " in browser.evaluate("document.querySelector('[role=alert]').textContent")
    assert browser.evaluate("document.querySelector('#status').textContent") == "2 of 2 faces answered"


def test_without_the_token_the_page_says_so(browser, url, faces):
    browser.open(url)
    browser.choose_files("#files", [faces / "one.png"])
    browser.wait_for("document.querySelector('article [role=alert]') !== null")
    assert "401: " in browser.evaluate("document.querySelector('[role=alert]').textContent")


def test_the_keyboard_reaches_everything(browser, url):
    browser.open(url)
    reached = []
    for _ in range(3):
        browser.press("Tab", 9)
        reached.append(browser.evaluate("document.activeElement.id"))
    assert reached == ["files", "label", "token"]
    outline = "getComputedStyle(document.querySelector('.drop')).outlineStyle"
    browser.evaluate("document.getElementById('files').focus()")
    assert browser.evaluate(outline) == "solid"


def test_no_other_script_runs(browser, url):
    browser.open(url)
    browser.evaluate(
        """(() => {
          const script = document.createElement("script");
          script.textContent = "window.intruder = true";
          document.body.append(script);
          const picture = document.createElement("img");
          picture.setAttribute("onerror", "window.intruder = true");
          picture.src = "/no-such-picture";
          document.body.append(picture);
        })()"""
    )
    assert browser.evaluate("window.intruder === undefined")
    assert any("Content Security Policy" in complaint for complaint in browser.complaints())


def test_it_is_dark_in_the_dark(browser, url):
    browser.open(url)
    levels = []
    for dark in (False, True):
        pixels = np.asarray(Image.open(io.BytesIO(browser.screenshot(400, 300, dark))).convert("L"))
        levels.append(np.median(pixels))
    assert levels[0] > 200 and levels[1] < 60


def test_the_page_knows_the_expressions_and_nothing_elsewhere():
    text = PAGE.decode()
    options = re.findall(r"<option[^>]*>(.*?)</option>", text)
    assert options == ["none", *EXPRESSIONS]
    assert not re.findall(r"(?:src|href|action)\s*=\s*[\"'](?!data:)", text)
    assert "http" not in text.replace("http-equiv", "")
