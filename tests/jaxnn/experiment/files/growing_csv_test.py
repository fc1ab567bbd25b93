"""Tests of jaxnn/experiment/files/growing_csv.py."""

import os

import numpy as np
import pytest

from jaxnn.experiment.files.growing_csv import GrowingCsv

HEADER = ("epoch", "layer", "norm")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "grown.csv"


def test_rows_are_on_disk_at_once(path):
    grown = GrowingCsv(path)
    grown.write(HEADER, [(1, "block, 0", 0.5), (1, "output", np.float64(0.25))])
    assert path.read_text() == 'epoch,layer,norm\n1,"block, 0",0.5\n1,output,0.25\n'
    grown.write(HEADER, [(2, "output", "")])
    assert path.read_text().endswith("0.25\n2,output,\n")
    grown.close()


def test_a_file_that_has_its_header_gets_no_other(path):
    path.write_text("epoch,layer,norm\n")
    grown = GrowingCsv(path)
    grown.write(HEADER, [(1, "output", 1)])
    assert path.read_text() == "epoch,layer,norm\n1,output,1\n"
    grown.close()


def test_a_closed_file_goes_on(path):
    grown = GrowingCsv(path)
    for epoch in (1, 2):
        before = len(os.listdir("/proc/self/fd"))
        grown.write(HEADER, [(epoch, "output", 1)])
        grown.close()
        grown.close()
        assert len(os.listdir("/proc/self/fd")) == before
    assert path.read_text() == "epoch,layer,norm\n1,output,1\n2,output,1\n"
