"""Near-duplicate pictures: finding them, splits without leaks, and the noise of their labels."""
