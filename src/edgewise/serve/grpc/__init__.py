"""The Open Inference Protocol v2 over gRPC, with Triton's extensions, health and reflection: over any `Host`."""

from edgewise.serve.grpc.server import GrpcServer, Settings, side

__all__ = ["GrpcServer", "Settings", "side"]
