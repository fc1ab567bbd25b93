"""Known semantic faults, planted in real runs: what the judge is measured by.

Each fault has the name of the switch in parity/semantics that undoes it. Fault and
switch are written independently of each other.
"""

from torch_ref.faults import layers, objective, optimizer, schedule
from torch_ref.faults.fault import Fault

FAULTS: dict[str, Fault] = {
    fault.name: fault
    for module in (schedule, objective, layers, optimizer)
    for fault in module.FAULTS
}
"""Name -> fault."""
