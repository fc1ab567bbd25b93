"""CSV tables: which dialect a file is in, its cells by column, and what they hold."""
