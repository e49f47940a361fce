"""What a run is: its settings, the presets, and which policy and statistics suit an environment."""
