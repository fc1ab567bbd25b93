"""parity: proves that two recordings of training are the same computation, or says
where they part."""

from jaxnn.experiment import console

console.say_interrupted_while_importing()
