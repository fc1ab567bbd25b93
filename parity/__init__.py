"""parity: proves that two recordings of training are the same computation, or says
where they part."""
