"""`tickerd export`: a recording as a table."""
