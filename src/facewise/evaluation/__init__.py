"""How often facewise is wrong, and for whom: scoring, calibration, reports. Extra ``evaluate``."""
