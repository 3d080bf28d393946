"""Small committed results of reference implementations."""
