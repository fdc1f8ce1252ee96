"""What the daemon may ask of us while it builds."""
