"""Files that both stacks read and write."""
