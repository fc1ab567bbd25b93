"""`python -m jaxnn.describe`: what a network costs; nothing is trained or allocated."""
