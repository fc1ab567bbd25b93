"""What both stacks share: flags, data, schedules and files.

Depends on NumPy, absl and the standard library; never on jax or torch.
"""
