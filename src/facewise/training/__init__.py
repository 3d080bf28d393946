"""How facewise's weights are made: data, network, training loop, export. Extra ``train``."""
