"""The OCI distribution API: manifests, blobs and tokens."""
