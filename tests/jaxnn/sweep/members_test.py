"""Tests of jaxnn/sweep/members.py."""

import numpy as np
import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags.config import Experiment
from jaxnn.sweep import axes, members

BASE = Experiment(precision="fp32")


def made(text, base=BASE, draws=0, **more):
    return members.make(base, axes.parse(text, base, draws > 0), draws, **more)


class TestGrid:
    def test_holds_every_combination(self):
        found = made("learning_rate=0.1,0.2; seed=0..2")
        assert [m.experiment.seed for m in found] == [0, 1, 2, 0, 1, 2]
        assert found[-1].settings == {"learning_rate": 0.2, "seed": 2}
        assert found[-1].setting == (("learning_rate", 0.2),)

    def test_trains_each_setting_on_every_fold(self):
        found = made("seed=0,1", BASE.replace(num_folds=3))
        assert [m.experiment.fold for m in found] == [0, 1, 2] * 2
        assert {m.setting for m in found} == {()}

    def test_contradiction_names_setting_and_flag(self):
        with pytest.raises(UserError) as error:
            made("optimizer=adamw,sgd; weight_decay=0.1")
        assert str(error.value).startswith(
            "--grid: optimizer=sgd weight_decay=0.1: --weight_decay: "
        )


class TestDraws:
    GRID = "learning_rate=1e-4..1; optimizer=sgd,adam; seed=0..9"

    def test_are_the_same_from_the_same_seed(self):
        one, same = (made(self.GRID, draws=5, random_seed=3) for _ in range(2))
        assert one == same
        assert one != made(self.GRID, draws=5, random_seed=4)

    def test_cover_decades_evenly(self):
        rates = [m.experiment.learning_rate for m in made(self.GRID, draws=900)]
        assert min(rates) >= 1e-4
        assert max(rates) <= 1
        counts, _ = np.histogram(np.log10(rates), 4, (-4, 0))
        # 225 expected; a deviation is 13.
        assert all(abs(counts - 225) < 65)

    def test_draw_no_setting_twice(self):
        assert len(made("seed=0,1", draws=50)) == 2
