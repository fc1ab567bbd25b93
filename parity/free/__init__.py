"""Free mode: judges where whole runs end, against JAX runs that start one ulp apart."""
