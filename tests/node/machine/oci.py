"""An image as the tar archive that container runtimes import."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

from cluster.image import Image
from support.config import Json

USER = "10001:10001"


def write(image: Image, name: str, archive: Path, user: str = USER) -> Path:
    """Writes an archive with one layer: the image's root."""
    layer = archive.with_suffix(".layer")
    with tarfile.open(layer, "w") as out:
        out.add(image.root, arcname=".")
    digest = hashlib.sha256()
    with layer.open("rb") as content:
        while chunk := content.read(1 << 20):
            digest.update(chunk)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": user,
            "Env": [f"{key}={value}" for key, value in image.env.items()],
            "Entrypoint": image.entrypoint,
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
    }
    with tarfile.open(archive, "w") as out:
        out.add(layer, arcname=f"blobs/sha256/{digest.hexdigest()}")
        config_entry = _blob(out, config, "application/vnd.oci.image.config.v1+json")
        layer_entry = {
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": f"sha256:{digest.hexdigest()}",
            "size": layer.stat().st_size,
        }
        manifest = {"schemaVersion": 2, "config": config_entry, "layers": [layer_entry]}
        entry = _blob(out, manifest, "application/vnd.oci.image.manifest.v1+json")
        entry["annotations"] = {"io.containerd.image.name": name}
        _file(out, "index.json", json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode())
        _file(out, "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')
    layer.unlink()
    return archive


def _blob(out: tarfile.TarFile, content: Json, media_type: str) -> Json:
    data = json.dumps(content).encode()
    digest = hashlib.sha256(data).hexdigest()
    _file(out, f"blobs/sha256/{digest}", data)
    return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}


def _file(out: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(data)
    out.addfile(entry, io.BytesIO(data))
