"""Whole data sets: sources split into shards, one worker function, local and Ray runners."""
