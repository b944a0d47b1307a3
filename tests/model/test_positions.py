import math

import torch

from licht.model.positions import image_ids, reference_ids, rotary_table, text_ids


def test_text_counts_up_on_the_last_axis_only() -> None:
    assert text_ids(3).tolist() == [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 2]]


def test_pictures_are_counted_in_raster_order() -> None:
    assert image_ids((2, 3), t=7).tolist() == [
        *([7, 0, 0, 0], [7, 0, 1, 0], [7, 0, 2, 0]),
        *([7, 1, 0, 0], [7, 1, 1, 0], [7, 1, 2, 0]),
    ]
    assert image_ids((2, 3))[:, 0].tolist() == [0] * 6


def test_references_stand_at_ten_twenty_thirty_and_start_anew() -> None:
    ids = reference_ids([(1, 2), (2, 1), (1, 1)])
    assert ids.tolist() == [[10, 0, 0, 0], [10, 0, 1, 0], [20, 0, 0, 0], [20, 1, 0, 0], [30, 0, 0, 0]]


def test_each_axis_turns_its_own_share_of_the_head() -> None:
    axes, theta = (2, 4, 2, 4), 2000.0
    ids = torch.tensor([[0, 0, 0, 0], [5, 0, 0, 0], [0, 3, 0, 0], [0, 0, 2, 0], [0, 0, 0, 7]])
    table = rotary_table(ids, axes, theta)
    assert table.shape == (5, 6)
    assert table.dtype == torch.complex64
    slow = theta ** (-2 / 4)
    angles = [
        [0, 0, 0, 0, 0, 0],
        [5, 0, 0, 0, 0, 0],
        [0, 3, 3 * slow, 0, 0, 0],
        [0, 0, 0, 2, 0, 0],
        [0, 0, 0, 0, 7, 7 * slow],
    ]
    wanted = torch.tensor([[complex(math.cos(a), math.sin(a)) for a in row] for row in angles])
    torch.testing.assert_close(table, wanted, atol=1e-6, rtol=0)


def test_far_positions_keep_their_precision() -> None:
    (turned,) = rotary_table(torch.tensor([[1_000_000, 0, 0, 0]]), (2, 2, 2, 2), 2000.0)
    assert abs(complex(turned[0]) - complex(math.cos(1e6), math.sin(1e6))) < 1e-6
