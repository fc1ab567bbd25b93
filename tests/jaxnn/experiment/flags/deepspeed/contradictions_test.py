"""A file overrides a flagfile; the command line contradicts it, all at once."""

import json
import shlex

import pytest

from jaxnn.experiment.errors import UserError
from jaxnn.experiment.flags import command_line
from tests.jaxnn.experiment.flags.deepspeed.entries import LARGER


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps(LARGER))
    return path


@pytest.fixture
def flagfile(tmp_path):
    path = tmp_path / "mine.flags"
    path.write_text("--batch_size=7\n--precision=fp16\n--clip_norm=3\n--epochs=2\n")
    return path


class TestContradictions:
    @pytest.mark.parametrize("joint", ["=", " "])
    def test_a_flagfile_gives_way(self, file, flagfile, capsys, joint):
        arguments = f"--flagfile{joint}{flagfile} --ds_config{joint}{file}".split()
        experiment, _ = command_line.parse(["prog", *arguments], "fp32")
        assert (experiment.batch_size, experiment.precision) == (64, "bf16")
        assert (experiment.clip_norm, experiment.epochs) == (1.0, 2)
        assert (
            "the file overrides the flagfile's --batch_size=7, --precision=fp16, "
            "--clip_norm=3.0"
        ) in capsys.readouterr().err

    def test_all_are_told_with_the_command_that_works(self, file, flagfile):
        typed = [
            f"--flagfile={flagfile}",
            f"--ds_config={file}",
            "--batch_size=5",
            "--clip_norm",
            "2",
            "--epochs=3",
            "--learning_rate=0.1",
        ]
        with pytest.raises(UserError) as error:
            command_line.parse(["prog", *typed], "fp32")
        told = str(error.value)
        assert "train_micro_batch_size_per_gpu means --batch_size=64, the flag" in told
        assert "gradient_clipping means --clip_norm=1.0, the flag says" in told
        assert "optimizer.params.lr means --learning_rate=0.002, the flag" in told
        assert "\n" not in told
        command = shlex.split(told.partition("leave out one of them: ")[2])
        kept = [word for word in command if word.startswith("--")]
        assert kept == [f"--flagfile={flagfile}", f"--ds_config={file}", "--epochs=3"]
        assert command_line.parse(["prog", *kept], "fp32")[0].epochs == 3

    def test_what_else_is_wrong_is_told_with_them(self, file):
        typed = [f"--ds_config={file}", "--clip_norm=2", "--epochs=0"]
        with pytest.raises(
            UserError, match=r"the flag says --clip_norm=2.*; besides, --epochs: must"
        ) as error:
            command_line.parse(["prog", *typed], "fp32")
        assert "\n" not in str(error.value)

    def test_devices_that_a_flag_names(self, file, tmp_path):
        file.write_text(json.dumps({"train_batch_size": 32}))
        with pytest.raises(
            UserError, match=r"times 3 devices \(--num_devices\) is not"
        ):
            command_line.parse(
                ["prog", f"--ds_config={file}", "--num_devices=3"], "fp32"
            )

    def test_a_path_of_two_lines_is_one(self, tmp_path):
        path = tmp_path / "a\nb.json"
        with pytest.raises(UserError, match=r"a\\nb\.json: No such") as error:
            command_line.parse(["prog", f"--ds_config={path}"], "fp32")
        assert "\n" not in str(error.value)
        path.write_text("{}")
        with pytest.raises(UserError, match=r"a\\nb\.json: train_batch_s") as error:
            command_line.parse(["prog", f"--ds_config={path}"], "fp32")
        assert "\n" not in str(error.value)


class TestExtra:
    """What DeepSpeed alone gets comes from the file and from --ds_extra."""

    def zero(self, file, *arguments):
        experiment, _ = command_line.parse(
            ["prog", f"--ds_config={file}", *arguments], "fp32"
        )
        return json.loads(experiment.ds_extra)["zero_optimization"]

    def test_a_flag_adds_to_the_file(self, file):
        flag = '--ds_extra={"zero_optimization": {"reduce_scatter": false}}'
        assert self.zero(file, flag) == {
            "overlap_comm": True,
            "offload_optimizer": {"device": "cpu"},
            "reduce_scatter": False,
        }

    def test_a_flag_that_says_otherwise(self, file):
        flag = '--ds_extra={"zero_optimization": {"overlap_comm": false}}'
        with pytest.raises(UserError, match=r"overlap_comm, .* means --ds_extra="):
            self.zero(file, flag)

    def test_a_flagfile_gives_way(self, file, tmp_path):
        path = tmp_path / "mine.flags"
        path.write_text('--ds_extra={"zero_optimization": {"overlap_comm": false}}\n')
        assert self.zero(file, f"--flagfile={path}")["overlap_comm"] is True
