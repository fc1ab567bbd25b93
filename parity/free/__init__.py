"""Judges where whole runs end, beside JAX runs that start an ulp apart."""
