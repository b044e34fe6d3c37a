"""The live page: what is served, how fast, and what was refused. One document, and the figures that it asks for once a second."""

from edgewise.serve.page.application import application
from edgewise.serve.page.document import HEADERS, document
from edgewise.serve.page.figures import Memory, figures

__all__ = ["HEADERS", "Memory", "application", "document", "figures"]
