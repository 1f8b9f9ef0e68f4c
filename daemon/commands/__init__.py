"""The commands of the command line beside `tickerd run`."""
