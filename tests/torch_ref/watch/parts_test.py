"""Tests of the recorder's parts: the thread, the listener's place, copies, masks."""

import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack

from torch_ref import batches
from torch_ref.watch import arrays, masks
from torch_ref.watch.background import Background
from torch_ref.watch.listener import Listener
from torch_ref.watch.passes import Pass
from torch_ref.watch.structure import Structure


class TestBackground:
    def test_calls_in_order_and_all_before_the_end(self):
        done = []
        with Background(done.append) as background:
            for number in range(5):
                background.put(number)
        assert done == list(range(5))

    def test_at_most_one_waits(self):
        release, begun = threading.Event(), []

        def work(number):
            begun.append(number)
            release.wait()

        with Background(work) as background:
            background.put(0)
            late = threading.Thread(target=background.put, args=(1,))
            late.start()
            late.join(0.1)
            assert late.is_alive()
            release.set()
            late.join()
        assert begun == [0, 1]

    def test_nothing_follows_an_error(self):
        """A later step would be taken for the one that is lacking."""
        done = []

        def work(number):
            done.append(number)
            raise OSError("disk full")

        def put_two():
            with Background(work) as background:
                background.put(0)
                background.put(1)

        with pytest.raises(OSError, match="disk full"):
            put_two()
        assert done == [0]

    def test_the_loops_own_error_goes_first(self):
        def work():
            raise OSError("disk full")

        def break_off():
            with Background(work) as background:
                background.put()
                raise RuntimeError("of the loop")

        with pytest.raises(RuntimeError, match="of the loop") as caught:
            break_off()
        assert caught.value.__notes__ == ["besides, own.record failed: disk full"]


class TestListener:
    class Other(TorchFunctionMode):
        """A mode of the program."""

    def test_stands_below_modes_that_end_before_it(self):
        """Such a mode takes off what is on top."""
        listener = Listener(print)
        other = self.Other()
        with other:
            listener.begin(Pass(None), [])  # type: ignore[arg-type]
            assert _get_current_function_mode_stack() == [listener, other]
        assert _get_current_function_mode_stack() == [listener]
        with other:
            listener.rest()
            assert _get_current_function_mode_stack() == [other]
        assert not _get_current_function_mode_stack()


class TestCopies:
    def test_kinds_and_shapes(self, monkeypatch):
        """In batches of two numbers, too."""
        tensors = {
            "a": torch.arange(6.0).reshape(2, 3).T,
            "b": torch.tensor(3),
            "c": torch.zeros(0, 2),
            "d": torch.arange(2).bfloat16(),
            "e": torch.tensor(1.5),
        }
        for limit in (2, 100):
            monkeypatch.setattr(batches, "LIMIT", limit)
            copies, exact = batches.copies(tensors), arrays.all_exact(tensors)
            assert list(copies) == list(exact) == list(tensors)
            for name, tensor in tensors.items():
                assert torch.equal(copies[name], tensor)
                assert copies[name].dtype == tensor.dtype
                assert exact[name].shape == tensor.shape
                np.testing.assert_array_equal(
                    exact[name].astype(float), tensor.double()
                )
        assert arrays.all_wide(tensors)["d"].dtype == np.float32

    def test_later_changes_do_not_reach_them(self):
        tensors = {"a": torch.zeros(3)}
        copied = arrays.all_exact(tensors)["a"]
        tensors["a"] += 1
        assert not copied.any()


class TestMasks:
    @pytest.mark.parametrize("zeros", [False, True])
    @pytest.mark.parametrize("inplace", [False, True])
    def test_is_that_of_the_output(self, zeros, inplace):
        """Read from it, or drawn again where an input is zero."""
        x = torch.arange(64.0) + (not zeros)
        torch.manual_seed(0)
        expected, after = functional.dropout(torch.ones(64), 0.5) != 0, torch.rand(1)
        torch.manual_seed(0)
        _, mask = masks.drop(functional.dropout, (x, 0.5, True, inplace), {})
        np.testing.assert_array_equal(mask, expected)
        assert torch.rand(1) == after


class TestStructure:
    def test_is_that_of_torch(self):
        net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.Linear(2, 2))
        net[2].weight = net[0].weight
        structure = Structure(net)
        assert list(structure.params()) == [name for name, _ in net.named_parameters()]
        assert list(structure.buffers()) == [name for name, _ in net.named_buffers()]
        net[1].running_mean = torch.ones(2)
        assert structure.buffers()["1.running_mean"].all()
