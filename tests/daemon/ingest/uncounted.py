"""What a test's connector has that counts nothing."""

from connectors.metric import Samples


class Uncounted:
    """A connector without numbers of its own."""

    unreadable = 0

    def measure(self, samples: Samples) -> None:
        """There is nothing to add."""
