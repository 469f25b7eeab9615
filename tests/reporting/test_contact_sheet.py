import io
import uuid

import numpy as np
import pytest
from PIL import Image, ImageColor

from synfer_ray.reporting.contact_sheet import (
    ACCENT,
    GAP,
    GUTTER,
    MARGIN,
    Tile,
    contact_sheet,
    write_contact_sheet,
)
from synfer_ray.storage.locations import filesystem
from tests.fake_dataset import face, fill


@pytest.mark.parametrize(("size", "side"), [(48, 96), (64, 128), (96, 192), (256, 192), (512, 192)])
def test_every_tile_shows_its_image_at_a_readable_size(size, side):
    colours = {"happy": ["#ff0000", "#00ff00"], "sad": ["#0000ff"]}
    rows = {
        name: [Tile(Image.new("RGB", (size, size), colour), ("one", "two")) for colour in row]
        for name, row in colours.items()
    }
    sheet = contact_sheet(rows)
    assert sheet.width == 2 * MARGIN + GUTTER + 2 * side + GAP
    pixels = np.asarray(sheet)
    for row in colours.values():
        for colour in row:
            assert (pixels == ImageColor.getrgb(colour)).all(-1).sum() == side * side


def test_images_keep_their_proportions():
    sheet = np.asarray(contact_sheet({"happy": [Tile(Image.new("RGB", (64, 32), "#ff0000"))]}))
    red = np.argwhere((sheet == (255, 0, 0)).all(-1))
    assert (np.ptp(red, axis=0) + 1).tolist() == [64, 128]


def test_a_long_line_stays_within_its_tile():
    words = "a photo of a person who looks surprised and a little afraid"
    sheet = np.asarray(contact_sheet({"fear": [Tile(Image.new("RGB", (64, 64), "white"), (words,))]}))
    caption = sheet[MARGIN + 128 :, MARGIN + GUTTER :]
    ink = np.argwhere(caption.sum(-1) < 500)
    assert 100 < ink[:, 1].max() < 128


def test_a_marked_tile_has_a_coloured_first_line():
    tile = Image.new("RGB", (64, 64), "white")
    accent = ImageColor.getrgb(ACCENT)

    def coloured(marked):
        return (
            (np.asarray(contact_sheet({"sad": [Tile(tile, ("asked fear", "AU12"), marked)]})) == accent)
            .all(-1)
            .sum()
        )

    assert coloured(True) > 0
    assert coloured(False) == 0


@pytest.mark.parametrize("size", [64, 512])
def test_the_sheet_of_a_dataset_has_a_row_an_expression(size):
    output = f"memory://{uuid.uuid4().hex}"
    fill(output, shards=2, rows=35, size=size)
    write_contact_sheet(output, columns=3)
    fs, root = filesystem(output)
    sheet = Image.open(io.BytesIO(fs.cat_file(f"{root}/contact_sheet.png")))
    side = min(2 * size, 192)
    assert sheet.width == 2 * MARGIN + GUTTER + 3 * side + 2 * GAP
    assert 7 * side < sheet.height < 7 * (side + 80) + 100
    first = sheet.crop((MARGIN + GUTTER, MARGIN + 44, MARGIN + GUTTER + side, MARGIN + 44 + side))
    expected = face(0, size).resize((side, side), Image.Resampling.LANCZOS)
    assert np.array_equal(np.asarray(first), np.asarray(expected))


def test_an_empty_dataset_has_no_sheet(tmp_path):
    write_contact_sheet(tmp_path)
    assert list(tmp_path.iterdir()) == []
