"""The catalogue of known semantic differences, each a switch on the replayed step."""

from parity.semantics import layers, objective, optimizer, schedule
from parity.semantics.switch import Switch

SWITCHES: dict[str, Switch] = {
    switch.name: switch
    for module in (schedule, objective, layers, optimizer)
    for switch in module.SWITCHES
}
