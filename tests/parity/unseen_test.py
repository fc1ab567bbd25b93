from jaxnn.experiment.flags.config import Experiment
from parity.unseen import unseen


def words(num_samples, steps, **flags):
    experiment = Experiment().replace(batch_size=32, **flags)
    return " ".join(unseen(experiment, num_samples, steps))


class TestUnseen:
    def test_what_a_few_steps_leave_out(self):
        said = words(100, 3)
        assert "No second epoch was reached (4 steps each)" in said
        assert "Every batch was whole" in said

    def test_what_two_epochs_show(self):
        said = words(100, 8)
        assert "second epoch" not in said
        assert "Every batch was whole" not in said

    def test_batches_that_are_always_whole(self):
        assert "Every batch was whole" in words(96, 8)

    def test_a_scale_that_could_not_grow(self):
        fp16 = dict(precision="fp16", loss_scale_window=1000)
        assert "--loss_scale_window=1000" in words(100, 8, **fp16)
        assert "window" not in words(100, 8, **fp16 | {"static_loss_scale": 128.0})
        assert "window" not in words(100, 8, precision="fp32")

    def test_what_is_shared_by_construction(self):
        assert "no initializer was compared" in words(100, 8)
