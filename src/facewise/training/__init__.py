"""Data, network, loop and export: how facewise's weights are made. Needs the ``train`` extra."""
