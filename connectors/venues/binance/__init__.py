"""Binance."""
