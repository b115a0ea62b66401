"""Progress in words, with the time that is left worked out by hand."""

from __future__ import annotations

from toolkit.engine.pace import Pace


def test_pace_says_epoch_share_loss_score_and_time_left() -> None:
    now = [100.0]
    pace = Pace(10, clock=lambda: now[0])
    pace.begin(0)
    now[0] = 110.0
    assert pace.step(1, 0.5, 1.25) == "epoch 1 of 10, 50%, loss 1.2500, 3:10 left"  # a twentieth took 10 s
    now[0] = 120.0
    assert pace.epoch(1, 1.0, 0.88) == "epoch 1 of 10, loss 1.0000, selection accuracy 88.0%, 3:00 left"
    assert pace.step(2, 0.5, 0.5).startswith("epoch 2 of 10, 50%, loss 0.5000, selection accuracy 88.0%, ")
    assert pace.epoch(10, 0.1, 0.9) == "epoch 10 of 10, loss 0.1000, selection accuracy 90.0%"
    assert pace.fraction(2, 0.5) == 0.15


def test_loss_is_no_share() -> None:
    pace = Pace(2, judged="loss", clock=lambda: 0.0)
    assert pace.epoch(2, 0.5, 0.03456) == "epoch 2 of 2, loss 0.5000, selection loss 0.03456"


def test_time_left_counts_from_where_a_training_was_taken_up() -> None:
    now = [0.0]
    pace = Pace(4, judged="score", clock=lambda: now[0])
    pace.begin(2)
    assert "left" not in pace.step(3, 0.0, 1.0)
    now[0] = 7200.0
    assert pace.epoch(3, 1.0, -0.25) == "epoch 3 of 4, loss 1.0000, selection score -0.25, 2:00:00 left"
