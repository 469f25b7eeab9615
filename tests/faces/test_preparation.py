import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image, ImageDraw

from synfer_ray.errors import InputError
from synfer_ray.faces.alignment import ARCFACE, CROPS
from synfer_ray.faces.images import BadImage, decode_image
from synfer_ray.faces.landmarks import FaceReading
from synfer_ray.faces.preparation import FacePreparation, choose_face, cut_out, distinct
from tests.faces.pictures import picture
from tests.faces.test_alignment import turned

FIVE = np.stack([ARCFACE.real, ARCFACE.imag], axis=1)
COLOURS = ("red", "lime", "blue", "yellow", "magenta")


def reading(box, keypoints=None) -> FaceReading:
    points = np.zeros((5, 2)) if keypoints is None else keypoints
    return FaceReading(np.zeros(41), points, np.array(box, dtype=float), 0.0, 0.0)


def test_policies_choose_among_several_faces():
    certain, large, central = reading([0, 0, 30, 30]), reading([60, 0, 100, 50]), reading([40, 40, 60, 60])
    faces = [certain, large, central]
    assert choose_face(faces, "certain", (100, 100)) is certain
    assert choose_face(faces, "largest", (100, 100)) is large
    assert choose_face(faces, "central", (100, 100)) is central
    with pytest.raises(BadImage, match="many_faces: 3 faces"):
        choose_face(faces, "reject", (100, 100))
    assert choose_face([large], "reject", (100, 100)) is large


def test_a_face_found_twice_counts_once():
    once, again, other = reading([0, 0, 40, 40]), reading([5, 5, 44, 44]), reading([50, 0, 90, 40])
    assert distinct([once, again, other]) == [once, other]
    assert distinct([]) == []


def dotted(points: np.ndarray, radius: float) -> Image.Image:
    image = Image.new("RGB", (600, 600), "black")
    draw = ImageDraw.Draw(image)
    for colour, point in zip(COLOURS, points):
        draw.circle(tuple(point), radius, fill=colour)
    return image


def centres(image: Image.Image) -> np.ndarray:
    """Where each colour is, as fractions of the side."""
    pixels = np.asarray(image, dtype=float) / 255
    rows, columns = (np.mgrid[: image.height, : image.width] + 0.5) / image.height
    found = []
    for colour in COLOURS:
        target = np.asarray(Image.new("RGB", (1, 1), colour), dtype=float)[0, 0] / 255
        weight = np.clip(1 - 3 * np.abs(pixels - target).sum(-1), 0, 1)
        found.append([(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()])
    return np.array(found)


@pytest.mark.parametrize("degrees", [0, 30])
def test_five_points_land_on_the_template(degrees):
    points = turned(FIVE, degrees, 220, (230, 170))
    face = cut_out(dotted(points, 6), reading([0, 0, 1, 1], points), "arcface", 112)
    assert face.size == (112, 112)
    np.testing.assert_allclose(centres(face), FIVE, atol=0.01)


@pytest.mark.parametrize(("crop", "share"), [("box", 1.0), ("mtcnn", 1 / 1.2)])
def test_a_box_keeps_its_margin_and_levels_the_eyes(crop, share):
    points = turned(FIVE, 25, 150, (280, 220))
    box = np.concatenate([points.min(0) - 30, points.max(0) + 30])
    face = cut_out(dotted(points, 5), reading(box, points), crop, 128)
    found = centres(face)
    assert found[0, 1] == pytest.approx(found[1, 1], abs=0.01)
    scale = np.linalg.norm(found[1] - found[0]) / np.linalg.norm(points[1] - points[0])
    assert scale == pytest.approx(share / (box[2:] - box[:2]).max(), rel=0.03)
    assert 2 * CROPS[crop].margin + 1 == pytest.approx(1 / share)


def test_without_a_face_or_a_crop_the_square_is_taken():
    image = picture(0, side=48).resize((96, 48))
    square = image.resize((32, 32), Image.Resampling.LANCZOS, box=(24, 0, 72, 48))
    assert np.array_equal(np.asarray(cut_out(image, None, "arcface", 32)), np.asarray(square))
    assert np.array_equal(np.asarray(cut_out(image, reading([0, 0, 9, 9]), "", 32)), np.asarray(square))
    with pytest.raises(InputError, match=r"'arcfce'.*did you mean 'arcface'"):
        cut_out(image, reading([0, 0, 9, 9]), "arcfce", 32)


@pytest.fixture(scope="module")
def model(third_party_models) -> str:
    pytest.importorskip("mediapipe")
    return str(third_party_models / "face_landmarker.task")


@pytest.fixture(scope="module")
def two_people(fer2013) -> Image.Image:
    """A large face on the left and a small one nearer to the middle."""
    table = pq.read_table(fer2013 / "validation-00000-of-00001.parquet").slice(0, 200).to_pylist()
    happy = [decode_image(row["image"]["bytes"]) for row in table if row["ferplus_votes"][1] >= 9]
    scene = Image.new("RGB", (600, 320), (128, 128, 128))
    scene.paste(happy[0].resize((220, 220), Image.Resampling.BICUBIC), (20, 50))
    scene.paste(happy[1].resize((170, 170), Image.Resampling.BICUBIC), (330, 80))
    return scene


def test_the_policy_decides_which_person_counts(model, two_people):
    largest = FacePreparation(model, many_faces="largest").find(two_people)
    central = FacePreparation(model, many_faces="central").find(two_people)
    assert largest.box[0] >= 20 and largest.box[2] <= 240
    assert central.box[0] >= 330 and central.box[2] <= 500
    assert FacePreparation(model, many_faces="reject").find(two_people.crop((0, 0, 300, 320))) is not None
    with pytest.raises(BadImage, match="many_faces: 2 faces"):
        FacePreparation(model, many_faces="reject").find(two_people)


def test_an_image_without_a_face_is_rejected_or_kept(model):
    grey = Image.new("RGB", (64, 64), (90, 90, 90))
    with pytest.raises(BadImage, match="no_face"):
        FacePreparation(model).find(grey)
    assert FacePreparation(model, no_face="keep").find(grey) is None
    for settings in ({"no_face": "drop"}, {"many_faces": "smallest"}):
        with pytest.raises(InputError, match="policy"):
            FacePreparation(model, **settings)
