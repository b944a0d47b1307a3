import pytest

from licht.core.elo import START, Interval, Vote, expected, ratings, standings, wilson


def test_equal_ratings_expect_a_draw_and_400_points_ten_to_one() -> None:
    assert expected(1500, 1500) == 0.5
    assert expected(1900, 1500) == pytest.approx(10 / 11)
    assert expected(1500, 1900) + expected(1900, 1500) == pytest.approx(1)


def test_one_vote_moves_both_by_the_same() -> None:
    after = ratings([Vote("a", "b", 1.0)])
    assert after == {"a": START + 12, "b": START - 12}
    assert ratings([Vote("a", "b", 0.5)]) == {"a": START, "b": START}


def test_the_mean_stays() -> None:
    votes = [Vote("a", "b", 1.0), Vote("b", "c", 0.0), Vote("c", "a", 0.5), Vote("a", "c", 1.0)]
    assert sum(ratings(votes).values()) == pytest.approx(3 * START)


def test_wilson_gives_the_known_interval() -> None:
    # Agresti and Coull 1998, table 1: 0 of 10 gives up to 0.278
    none, half = wilson(0, 10), wilson(50, 100)
    assert [none.low, none.high] == pytest.approx([0.0, 0.2775], abs=1e-3)
    assert [half.low, half.high] == pytest.approx([0.4038, 0.5962], abs=1e-3)
    assert wilson(0, 0) == Interval(0.0, 1.0)


def test_who_wins_more_stands_higher_and_intervals_hold_the_truth() -> None:
    votes = [Vote("good", "bad", 1.0)] * 15 + [Vote("bad", "good", 1.0)] * 5 + [Vote("bad", "good", 0.5)] * 4
    first, second = standings(votes)
    assert (first.name, first.wins, first.losses, first.ties, first.votes) == ("good", 15, 5, 4, 24)
    assert first.win_rate == pytest.approx(17 / 24)
    assert first.win_rate_interval.low < 17 / 24 < first.win_rate_interval.high
    assert first.rating_interval.low <= first.rating <= first.rating_interval.high
    assert second.win_rate == pytest.approx(7 / 24)


def test_the_same_votes_give_the_same_table() -> None:
    votes = [Vote("a", "b", 1.0), Vote("a", "c", 0.5), Vote("c", "b", 0.0)]
    assert standings(votes) == standings(votes)
    assert standings([]) == []


def test_a_score_is_a_win_a_tie_or_a_loss() -> None:
    with pytest.raises(ValueError, match=r"score 0\.7"):
        Vote("a", "b", 0.7)
