import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.diffusion.noise import initial_noise, row_generator

torch.set_num_threads(1)
seeds = st.integers(min_value=0, max_value=2**32 - 1)


@settings(max_examples=30, deadline=None)
@given(st.lists(seeds, min_size=1, max_size=5))
def test_the_noise_of_a_row_follows_from_its_seed_alone(rows):
    noise = initial_noise(rows, (4, 3, 2))
    assert noise.shape == (len(rows), 4, 3, 2)
    for seed, row in zip(rows, noise):
        assert torch.equal(row, torch.randn((4, 3, 2), generator=row_generator(seed)))
    assert len({tuple(row.flatten().tolist()) for row in noise}) == len(set(rows))


def test_noise_is_standard_normal():
    noise = initial_noise(range(100), (4, 16, 16))
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1) < 0.02
