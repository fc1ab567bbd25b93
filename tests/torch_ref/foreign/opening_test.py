"""What is not read, and the line that says so."""

import re

import pytest
import torch

from jaxnn.experiment.errors import UserError
from tests.torch_ref.foreign.written import TAG, common, save, zero
from torch_ref.foreign.opening import open_anyones

RANK = "zero_pp_rank_{}_mp_rank_00_optim_states.pt"


def refused(folder):
    with pytest.raises(UserError) as caught:
        open_anyones(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def folder(tmp_path):
    return save(tmp_path / "c", common(), [zero()])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mp_rank_01_model_states.pt", r"over several ranks \(tensor parallelism\)"),
        ("layer_00-model_states.pt", "was written by a pipeline"),
        ("layer_0_expert_0_mp_rank_00_model_states.pt", "pipeline|experts"),
        ("expert_0_mp_rank_00_optim_states.pt", r"has experts \(MoE\)"),
        (RANK.format(1), "written by 1 ranks and holds zero_pp_rank_1"),
    ],
)
def test_files_of_other_layouts(folder, name, message):
    (folder / TAG / name).touch()
    assert re.search(message, refused(folder))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"mp_world_size": 2}, "over 2 ranks"),
        ({"num_experts": [4]}, r"experts \(MoE: num_experts\)"),
        ({"ds_autoep_layers": [{"a": 1}]}, "MoE: ds_autoep_layers"),
        ({"module": None}, "written by a pipeline"),
        ({"param_shapes": None}, "lists no param_shapes"),
        ({"dp_world_size": 2}, "of rank 1 of 2 is missing"),
    ],
)
def test_contents_of_other_layouts(tmp_path, more, message):
    assert re.search(message, refused(save(tmp_path / "c", common(**more), [zero()])))


def test_ranks_of_other_stages(tmp_path):
    ranks = [zero(partition_count=[2]), zero(zero_stage=2, partition_count=[2])]
    folder = save(tmp_path / "c", common(dp_world_size=2), ranks)
    assert "rank 0 is of ZeRO stage 1, rank 1 of 2" in refused(folder)


def test_a_state_cut_among_some_of_the_ranks(tmp_path):
    folder = save(tmp_path / "c", common(), [zero(partition_count=[4])])
    assert "cuts its state among 4 of 1 ranks" in refused(folder)


def test_no_latest(folder):
    (folder / "latest").unlink()
    assert f"has no file latest; give one of its folders, {TAG}" in refused(folder)
    assert open_anyones(folder / TAG).stage == 1


def test_latest_of_a_folder_that_is_gone(folder):
    (folder / "latest").write_text("global_step8")
    assert "names global_step8, which is not there" in refused(folder)


def test_cut_off(folder):
    path = folder / TAG / RANK.format(0)
    path.write_bytes(path.read_bytes()[:1000])
    message = f"cannot read {path}: it is cut off or damaged; take another checkpoint"
    assert refused(folder) == message


def test_universal(folder):
    (folder / TAG / "zero" / "a.weight").mkdir(parents=True)
    (folder / TAG / "zero" / "a.weight" / "fp32.pt").touch()
    assert "is a universal checkpoint, which is not read" in refused(folder)


def test_weights_alone(tmp_path):
    folder = save(tmp_path / "c", {"module": {}})
    assert "lacks buffer_names: no file that engine.save_checkpoint" in refused(folder)
    torch.save([1], folder / TAG / "mp_rank_00_model_states.pt")
    assert "lacks buffer_names" in refused(folder)


class Hostile:
    def __reduce__(self):
        return print, ("run",)


def test_runs_no_code(tmp_path, capsys):
    folder = save(tmp_path / "c", common(client=Hostile()), [zero()])
    assert "it names print, and a checkpoint may run no code" in refused(folder)
    assert capsys.readouterr().out == ""


def test_no_folder(tmp_path):
    assert "is no folder" in refused(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    assert "has no file latest; give another" in refused(tmp_path / "empty")
