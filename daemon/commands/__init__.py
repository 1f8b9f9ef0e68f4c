"""What the command line does beside `tickerd run`."""
