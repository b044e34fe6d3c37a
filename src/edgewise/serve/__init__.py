"""The edge server: the Open Inference Protocol v2 over any `Host`, with keys, limits, metrics and what else stands around it.

`starting.edge` puts it together over a folder of models; `rest.Rest` is its REST side as a plain ASGI application, for whoever has a
server already, `grpc.GrpcServer` the other one.
"""
