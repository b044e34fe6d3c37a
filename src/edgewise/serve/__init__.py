"""The edge server: protocols over a `Host`, keys and limits, the page."""
