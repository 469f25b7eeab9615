import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.training.data import gather, label_distributions, mirror_text, repeat_rare, silence_unclear
from synfer_ray.training.experts import class_weight, mirrored_indices
from synfer_ray.training.latents import LatentEncoder, ViewEncoder
from tests.tiny_bundle import save_tiny_bundle


def test_mirroring_exchanges_left_and_right_words_only():
    assert (
        mirror_text("turned left, right brow raised, brightly lit")
        == "turned right, left brow raised, brightly lit"
    )


@given(st.text("left right,. ab"))
def test_mirroring_twice_changes_nothing(text):
    assert mirror_text(mirror_text(text)) == text


def test_mirrored_action_units():
    mirror = mirrored_indices()
    assert ACTION_UNITS[mirror[ACTION_UNITS.index("AUL12")]] == "AUR12"
    assert ACTION_UNITS[mirror[ACTION_UNITS.index("AU12")]] == "AU12"
    assert [mirror[index] for index in mirror] == list(range(41))


def test_rows_are_gathered_in_the_order_of_their_ids():
    parts = [
        {"sample_id": np.array(["c", "a"]), "x": np.array([3, 1])},
        {"sample_id": np.array(["b"]), "x": np.array([2])},
    ]
    assert gather(parts)["x"].tolist() == [1, 2, 3]


def test_votes_take_precedence_over_the_label():
    columns = {
        "label": np.array([2, 5]),
        "label_probs": np.array([None, [0, 0.25, 0, 0, 0.75, 0, 0]], dtype=object),
    }
    assert label_distributions(columns).tolist() == [[0, 0, 1, 0, 0, 0, 0], [0, 0.25, 0, 0, 0.75, 0, 0]]


def test_rare_classes_weigh_more_and_the_mean_weight_is_one():
    share = np.array([0.4, 0.3, 0.1, 0.1, 0.04, 0.01, 0.05])
    weight = class_weight(share).numpy()
    assert np.all(np.argsort(weight) == np.argsort(-share))
    np.testing.assert_allclose((weight * share).sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(weight[5] / weight[0], np.sqrt(0.4 / 0.01), rtol=1e-5)


@pytest.mark.parametrize(("most", "times"), [(8, [1, 2, 7]), (4, [1, 2, 4]), (1, [1, 1, 1])])
def test_rare_expressions_are_repeated_by_the_root_of_their_rarity(most, times):
    share = np.array([0.49, 0.12, 0.01, 0, 0, 0, 0.38])
    batch = {"sample_id": np.array(["a", "b", "c"]), "label_probs": np.eye(7)[:3], "x": np.ones((3, 2))}
    repeated = repeat_rare(batch, share, most, power=0.5)
    assert set(repeated) == {"sample_id", "x"}
    assert "".join(repeated["sample_id"]) == "".join(name * time for name, time in zip("abc", times))
    assert repeated["x"].shape == (sum(times), 2)
    evened = repeat_rare(batch, share, 100, power=1.0)
    assert "".join(evened["sample_id"]) == "a" + "b" * 4 + "c" * 49


def test_unclear_faces_come_once_and_without_caption():
    batch = {
        "sample_id": np.array(list("ab")),
        "input_ids": np.array([[1, 2], [1, 3]]),
        "label_probs": np.array([[0.6, 0.4], [0.5, 0.5]]),
    }
    silent = silence_unclear(batch, 0.6, np.array([0, 0]))
    assert silent["input_ids"].tolist() == [[1, 2], [0, 0]]
    repeated = repeat_rare(silent, np.array([0.1, 0.9]), most=3, power=1.0, clear_share=0.6)
    assert "".join(repeated["sample_id"]) == "aaab"
    assert repeated["input_ids"].tolist() == [[1, 2]] * 3 + [[0, 0]]


def test_faces_of_another_size_are_resized_and_encoded_a_few_at_a_time(tmp_path, monkeypatch):
    faces = np.random.default_rng(0).integers(0, 255, (5, 48, 48, 3), np.uint8)
    batch = {
        "sample_id": np.array(list("abcde")),
        "image": faces,
        "caption": ["a happy face"] * 5,
        "action_units": np.zeros((5, 41), np.float32),
        "label_probs": np.full((5, 7), 1 / 7, np.float32),
    }
    encoder = LatentEncoder(str(save_tiny_bundle(tmp_path / "bundle")), image_size=32)
    sizes: list[int] = []
    encoder.vae.encoder.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    whole = encoder(batch)["latents"]
    monkeypatch.setattr("synfer_ray.training.latents.PIXELS_AT_ONCE", 3 * 32 * 32)
    split = encoder(batch)["latents"]
    assert whole.shape == split.shape == (10, 4, 8, 8)
    np.testing.assert_allclose(split, whole, atol=2e-3)
    assert sizes == [10, 3, 3, 3, 1]


def test_a_view_is_the_face_itself_first_and_then_others_of_it(tmp_path):
    faces = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), np.uint8)
    batch = {
        "sample_id": np.array(list("abc")),
        "image": faces,
        "label_probs": np.eye(7, dtype=np.float32)[:3],
    }
    bundle = str(save_tiny_bundle(tmp_path / "bundle"))
    encoder = ViewEncoder(bundle, image_size=32, views=2)
    rows, again = encoder(batch), encoder(batch)
    assert rows["sample_id"].tolist() == [f"{name}~{view}" for view in range(3) for name in "abc"]
    assert rows["label_probs"].argmax(1).tolist() == [0, 1, 2] * 3
    np.testing.assert_array_equal(rows["latents"], again["latents"])
    np.testing.assert_allclose(rows["latents"][:3], encoder.encode(encoder.images(faces)), atol=2e-3)
    views = rows["latents"].astype(np.float32).reshape(3, 3, -1)
    assert all(np.abs(views[0] - views[place]).max() > 0.01 for place in (1, 2))
