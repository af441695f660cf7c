"""What Korora needs from the world, as small protocols named by need."""
