"""`python -m jaxnn.describe`: what a network costs, without training or allocating it."""
