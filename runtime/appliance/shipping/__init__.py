"""Releases of the appliance: folders that install it on machines without a network, and the unit of systemd.

    wheels      the platform of a release, the pinned packages for it, and what they say of themselves
    sbom        the bill of materials
    minisign    signatures
    release     the folder: written, and verified

Beside these modules lie the files that a release contains: `install.sh`, the unit and its drop-in for GPUs, an example
of the configuration, a Containerfile.
"""
