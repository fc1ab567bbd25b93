"""Tests of torch_ref/deepspeed_files.py: what a file is read as, or refused for."""

import random

import pytest
import torch

from jaxnn.experiment.errors import UserError
from torch_ref import deepspeed_files

CONTENT = {
    "single_partition_of_fp32_groups": [torch.linspace(-1, 1, 500)],
    "step": torch.tensor(7),
    "exp_avg": torch.full((300,), 0.25),
}


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "zero_pp_rank_0_mp_rank_00_optim_states.pt"
    torch.save(CONTENT, path)
    return path


def equal(left, right):
    (masters,), (others,) = (
        content["single_partition_of_fp32_groups"] for content in (left, right)
    )
    return (
        torch.equal(masters, others)
        and torch.equal(left["exp_avg"], right["exp_avg"])
        and left["step"] == right["step"]
    )


class TestRead:
    def test_what_was_written(self, written):
        assert equal(deepspeed_files.read(written), CONTENT)

    def test_no_flipped_bit_is_read_in_silence(self, written):
        whole = written.read_bytes()
        draw = random.Random(0)
        said = []
        for place in draw.sample(range(len(whole)), 150):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << draw.randrange(8)
            written.write_bytes(damaged)
            try:
                # Some bits are padding between the members.
                assert equal(deepspeed_files.read(written), CONTENT), place
            except UserError as error:
                said.append(str(error))
        assert len(said) > 75
        assert all(str(written) in line and "\n" not in line for line in said)

    def test_names_the_member(self, written):
        whole = written.read_bytes()
        place = whole.index(CONTENT["exp_avg"].numpy().tobytes())
        written.write_bytes(whole[:place] + b"\1" + whole[place + 1 :])
        with pytest.raises(UserError, match=r"/data/\d in it is damaged; take another"):
            deepspeed_files.read(written)
