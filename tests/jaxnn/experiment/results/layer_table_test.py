"""Tests of jaxnn/experiment/results/layer_table.py."""

from jaxnn.experiment.results.layer_table import MOST_ROWS, Network, lines


def network(*layers):
    """A network of layers whose kernels are 2x3."""
    return Network(
        {f"{layer}/kernel": (2, 3) for layer in layers},
        {layer: (5, 3) for layer in layers},
    )


class TestLines:
    def test_a_row_a_layer(self):
        found = lines(
            Network(
                {
                    "hidden/kernel": (30, 64),
                    "hidden/bias": (64,),
                    "gain": (2,),
                    "output/kernel": (64, 1),
                },
                {"hidden": (64,), "output": (1,)},
            )
        )
        assert found == [
            "layer   output  parameters             count",
            "hidden  64      kernel 30x64, bias 64  1,984",
            "gain            2                          2",
            "output  1       kernel 64x1               64",
            "2,050 parameters",
        ]

    def test_blocks_of_a_longer_network_are_a_row_each(self):
        inside = [f"block_{n // 7}/dense_{n % 7}" for n in range(14)]
        given = network("input", *inside)
        outputs = {**given.outputs, "block_1": (9,)}
        assert lines(given._replace(outputs=outputs)) == [
            "layer    output  parameters  count",
            "input    5x3     kernel 2x3      6",
            "block_0  5x3     7 layers       42",
            "block_1  9       7 layers       42",
            "90 parameters",
        ]

    def test_of_a_very_long_one_the_middle_is_left_out(self):
        found = lines(network(*(f"layer_{n}" for n in range(100))))
        assert len(found) == MOST_ROWS + 2
        assert [row.split()[0] for row in found[8:12]] == [
            "layer_7",
            "...",
            "layer_97",
            "layer_98",
        ]
        assert found[9].split() == ["...", "89", "more", str(89 * 6)]
        assert found[-1] == "600 parameters"
