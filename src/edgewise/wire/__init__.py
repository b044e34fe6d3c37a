"""How a workshop and a device talk: a key that both hold, TLS by it, the messages. Without numpy: a worker that waits stays small."""
