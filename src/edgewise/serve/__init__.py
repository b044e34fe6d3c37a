"""The edge server: the Open Inference Protocol v2 over any `Host`, with keys, limits, metrics and what else stands around it.

`server.run` starts it; `rest.application` is its REST side as a plain ASGI application, for whoever has a server already.
"""
