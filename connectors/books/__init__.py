"""Order books: both sides of one, and what is published of it."""
