"""What both stacks share: flags, data, batches, schedules, files. Imports neither jax
nor torch."""
