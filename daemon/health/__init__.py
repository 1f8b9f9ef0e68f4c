"""Watches the state of each channel: is its data fresh, and is it plausible?"""
