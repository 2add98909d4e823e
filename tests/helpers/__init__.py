"""What several tests share: small bundles and studies, doubles of libraries and devices, readers of results."""
