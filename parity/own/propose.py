"""Proposes where the leaves of a port come from, where no converter says so."""
