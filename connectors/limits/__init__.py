"""What a venue may cost: its JSON looked over before it is passed on, and how much of something per second."""
