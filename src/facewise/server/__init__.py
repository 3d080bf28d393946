"""The web app and the REST API: ``create_app(settings, analyzer)``."""

from facewise.server.app import create_app

__all__ = ["create_app"]
