"""The state of each channel: is its data fresh, and can it be right?"""
