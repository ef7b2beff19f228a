"""A pod's volumes as folders of this machine."""

from __future__ import annotations

import base64
import os
from pathlib import Path

from support.config import Json

from .control_plane import ControlPlane

USER = 10001


class Volumes:
    """Those of one pod."""

    def __init__(self, plane: ControlPlane, pod: Json, folder: Path) -> None:
        self.plane, self.pod, self.folder = plane, pod, folder
        self.core = f"/api/v1/namespaces/{pod['metadata']['namespace']}"

    def make(self) -> dict[str, Path]:
        """Each volume's folder by its name, with the user of the pod as owner."""
        found = {}
        for volume in self.pod["spec"].get("volumes", []):
            found[volume["name"]] = place = self._one(volume)
            if os.getuid() == 0:
                for path in [place, *place.rglob("*")]:
                    os.chown(path, USER, USER)
        return found

    def _one(self, volume: Json) -> Path:
        if claim := volume.get("persistentVolumeClaim"):
            bound = self.plane.get(f"{self.core}/persistentvolumeclaims/{claim['claimName']}")
            disk = self.plane.get(f"/api/v1/persistentvolumes/{bound['spec']['volumeName']}")
            return Path(disk["spec"]["hostPath"]["path"])
        place = self.folder / volume["name"]
        place.mkdir(parents=True)
        for name, content in self._files(volume).items():
            (place / name).write_bytes(content)
            (place / name).chmod(0o440)
        return place

    def _files(self, volume: Json) -> dict[str, bytes]:
        if "emptyDir" in volume:
            return {}
        if secret := volume.get("secret"):
            return self._chosen(secret, self._secret(secret["secretName"]))
        if config := volume.get("configMap"):
            return self._chosen(config, self._config(config["name"]))
        files: dict[str, bytes] = {}
        for source in volume["projected"]["sources"]:
            if asked := source.get("serviceAccountToken"):
                files[asked["path"]] = self._token(asked["expirationSeconds"])
            elif config := source.get("configMap"):
                files |= self._chosen(config, self._config(config["name"]))
            else:
                files["namespace"] = self.pod["metadata"]["namespace"].encode()
        return files

    def _secret(self, name: str) -> dict[str, bytes]:
        data = self.plane.get(f"{self.core}/secrets/{name}")["data"]
        return {key: base64.b64decode(value) for key, value in data.items()}

    def _config(self, name: str) -> dict[str, bytes]:
        data = self.plane.get(f"{self.core}/configmaps/{name}").get("data", {})
        return {key: value.encode() for key, value in data.items()}

    def _chosen(self, source: Json, files: dict[str, bytes]) -> dict[str, bytes]:
        if "items" not in source:
            return files
        return {item["path"]: files[item["key"]] for item in source["items"]}

    def _token(self, seconds: int) -> bytes:
        meta = self.pod["metadata"]
        bound = {"kind": "Pod", "apiVersion": "v1", "name": meta["name"], "uid": meta["uid"]}
        account = self.pod["spec"]["serviceAccountName"]
        answer = self.plane.done(
            "POST",
            f"{self.core}/serviceaccounts/{account}/token",
            {"spec": {"expirationSeconds": seconds, "boundObjectRef": bound}},
        )
        return answer["status"]["token"].encode()
