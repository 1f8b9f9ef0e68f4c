"""Coinbase."""
