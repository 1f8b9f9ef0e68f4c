"""What the venues' connections said, kept as it came: the recorder, the files, and how they are read."""
