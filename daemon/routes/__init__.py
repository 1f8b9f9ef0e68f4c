"""Plain HTTP: the page, reports, metrics."""
