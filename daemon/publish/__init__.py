"""From events to entries on the tape, and to whoever follows the tape."""
