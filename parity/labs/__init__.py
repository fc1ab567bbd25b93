"""Labs: small experiments that show one thing each, on a page with its claims."""
