"""Whole data sets: sources to shards, one worker function, local and Ray runners around it."""
