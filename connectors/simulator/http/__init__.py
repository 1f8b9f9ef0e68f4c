"""The simulated venues' side of HTTP: requests and answers as plain values, and how bytes get onto the wire."""
