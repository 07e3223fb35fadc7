"""The one container image: almost empty, for the base runtime spec binds this machine's programs in."""

import hashlib
import io
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from k8s.devcluster.settings import IN_CONTAINERS

OCI = "application/vnd.oci.image"
FOLDERS = ("usr", "etc", "proc", "sys", "dev", "run", "var", "home", "root", "tmp", "headrace")
LINKS = ("bin", "sbin", "lib", "lib64")
FILES = {
    "etc/passwd": "root:x:0:0::/root:/bin/sh\nheadrace:x:1000:1000::/home:/bin/sh\n",
    "etc/group": "root:x:0:\nheadrace:x:1000:\n",
    "etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
}


def write(path: Path, names: Sequence[str], pause: Path) -> None:
    """Write an OCI archive at `path` that holds the image under each of `names`.

    `pause` is the program that keeps a pod's namespaces; it alone is in the image, for a sandbox
    gets nothing of the base runtime spec.
    """
    layer = _layer(pause.read_bytes())
    blobs: dict[str, bytes] = {}
    described = _add(blobs, layer, f"{OCI}.layer.v1.tar")
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "Entrypoint": ["/pause"],
            "Env": [f"PATH={IN_CONTAINERS}/bin:/usr/local/bin:/usr/bin:/bin", "PYTHONUNBUFFERED=1"],
        },
        "rootfs": {"type": "layers", "diff_ids": [described["digest"]]},
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{OCI}.manifest.v1+json",
        "config": _add(blobs, json.dumps(config).encode(), f"{OCI}.config.v1+json"),
        "layers": [described],
    }
    entry = _add(blobs, json.dumps(manifest).encode(), f"{OCI}.manifest.v1+json")
    index = {
        "schemaVersion": 2,
        "manifests": [entry | {"annotations": {"io.containerd.image.name": n}} for n in names],
    }
    with tarfile.open(path, "w") as archive:
        _file(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _file(archive, "index.json", json.dumps(index).encode())
        for digest, blob in blobs.items():
            _file(archive, f"blobs/sha256/{digest}", blob)


def _layer(pause: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name in FOLDERS:
            folder = tarfile.TarInfo(name)
            folder.type, folder.mode = tarfile.DIRTYPE, 0o1777 if name == "tmp" else 0o755
            archive.addfile(folder)
        for name in LINKS:
            link = tarfile.TarInfo(name)
            link.type, link.linkname = tarfile.SYMTYPE, f"usr/{name}"
            archive.addfile(link)
        for name, text in FILES.items():
            _file(archive, name, text.encode(), 0o644)
        _file(archive, "pause", pause, 0o755)
    return buffer.getvalue()


def _file(archive: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    archive.addfile(entry, io.BytesIO(data))


def _add(blobs: dict[str, bytes], blob: bytes, media_type: str) -> dict[str, object]:
    digest = hashlib.sha256(blob).hexdigest()
    blobs[digest] = blob
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(blob)}
