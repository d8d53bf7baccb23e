"""The HTTP API of a Docker Engine: builds, images, caches, and the way through to its BuildKit."""
