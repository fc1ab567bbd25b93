"""report.html: the whole judgement on one page that needs no network and no script."""

from parity.html.page import first_divergence, write

__all__ = ["first_divergence", "write"]
