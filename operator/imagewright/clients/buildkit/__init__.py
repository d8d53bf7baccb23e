"""BuildKit's protocol, natively: Control over gRPC, sessions, contexts as LLB, typed errors."""
