"""The verdict as people read it: a table in the terminal, and report.html."""
