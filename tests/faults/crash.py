"""A training program that dies."""

raise SystemExit("the torch side fell over")
