"""The messages of BuildKit's protocols that we use, from .proto files of our own."""
