"""Files that both stacks write and read: workdir, trace and handoff."""
