"""Speed and scores measured beside those of others."""
