"""Manifests for tests."""

from __future__ import annotations

from graphorch_ray.checkpoint.manifest import Active, Blob, Manifest, Stored


def step(superstep: int, *blobs: Blob, kind: str = "superstep", document: bytes = b"x") -> Manifest:
    """A small checkpoint that stands before a superstep."""
    return Manifest(
        kind=kind,
        status="running",
        superstep=superstep,
        states=(Stored(document, blobs),),
        active=(Active("a", ("start",), (0,)),),
    )
