"""HTTPS on the HTTP ingress: Ray's fields, ALPN, and a certificate that is replaced in service."""

from __future__ import annotations

import datetime
import http.client
import socket
import ssl
import subprocess
from pathlib import Path

import pytest
import requests
from conftest import NewServer
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from support.config import Json, app, deployment, noop
from support.exposition import total
from support.server import Server
from support.waiting import wait_until
from websockets.sync.client import connect


def write_pair(
    cert: Path, key: Path, password: bytes | None = None, old_form: bool = False
) -> bytes:
    """A self-signed certificate for loopback and its key; the certificate's DER."""
    made = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.timezone.utc)
    names = [x509.DNSName("localhost")]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .sign(made, hashes.SHA256())
    )
    encryption: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if password is not None:
        encryption = serialization.BestAvailableEncryption(password)
    key.write_bytes(
        made.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL
            if old_form
            else serialization.PrivateFormat.PKCS8,
            encryption,
        )
    )
    cert.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    return signed.public_bytes(serialization.Encoding.DER)


class Https:
    """A server with a certificate."""

    def __init__(self, server: Server, cert: Path, key: Path, der: bytes) -> None:
        self.server, self.cert, self.key, self.der = server, cert, key, der

    def shown(self) -> bytes:
        """The certificate that a new connection is shown."""
        anyone = ssl._create_unverified_context()
        with socket.create_connection(("127.0.0.1", self.server.http_port), 10) as plain:
            with anyone.wrap_socket(plain) as tls:
                shown = tls.getpeercert(binary_form=True)
                assert shown is not None
                return shown


def start_https(server: Server, folder: Path, der: bytes, **options: str) -> Https:
    """Starts it with `cert.pem` and `key.pem` of the folder."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    config = server.config(
        [noop(), app("echo", "echo", "/echo", deployment("Echo"))],
        ssl_certfile=str(cert),
        ssl_keyfile=str(key),
        **options,
    )
    server.spawn(config)
    wait_until(
        lambda: server.process is not None and "https://127.0.0.1" in server.log_tail(),
        "the banner says https",
        60,
    )
    return Https(server, cert, key, der)


@pytest.fixture
def https(new_server: NewServer, tmp_path: Path) -> Https:
    der = write_pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    return start_https(new_server(), tmp_path, der)


def test_clients_that_trust_the_certificate_are_served_over_http1_and_http2(https: Https) -> None:
    port = https.server.http_port
    answer = requests.post(
        f"https://localhost:{port}/echo", data=b"hello", verify=str(https.cert), timeout=10
    )
    assert (answer.status_code, answer.content) == (200, b"hello")
    for asked, version in (("--http1.1", "1.1"), ("--http2", "2")):
        command = ["curl", "-sS", asked, "--cacert", str(https.cert), "-w", " %{http_version}"]
        command.append(f"https://localhost:{port}/noop")
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        assert done.stdout == f"mobula no-op is fine {version}", done.stderr


@pytest.mark.parametrize(
    ("offered", "chosen"),
    [(["h2", "http/1.1"], "h2"), (["http/1.1"], "http/1.1"), (None, None)],
)
def test_alpn_prefers_http2(https: Https, offered: list[str] | None, chosen: str | None) -> None:
    context = ssl.create_default_context(cafile=str(https.cert))
    if offered is not None:
        context.set_alpn_protocols(offered)
    with socket.create_connection(("127.0.0.1", https.server.http_port), 10) as plain:
        with context.wrap_socket(plain, server_hostname="localhost") as tls:
            assert tls.selected_alpn_protocol() == chosen
            assert tls.version() in ("TLSv1.2", "TLSv1.3")


def test_a_websocket_goes_through_tls(https: Https) -> None:
    context = ssl.create_default_context(cafile=str(https.cert))
    url = f"wss://localhost:{https.server.http_port}/echo"
    with connect(url, ssl=context, open_timeout=20, close_timeout=20) as client:
        client.send("hello")
        assert client.recv(20) == "hello"


def test_plain_http_gets_no_answer_on_the_port_of_https(https: Https) -> None:
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{https.server.http_port}/noop", timeout=10)


def reads(https: Https, outcome: str) -> float:
    """How often a changed certificate was read with that outcome."""
    of = {"credential": "ingress_certificate", "outcome": outcome}
    return total(https.server.metrics(), "mobula_credential_reloads_total", **of)


def test_a_new_certificate_is_taken_without_ending_a_connection(https: Https) -> None:
    context = ssl.create_default_context(cafile=str(https.cert))
    kept = http.client.HTTPSConnection(
        "localhost", https.server.http_port, context=context, timeout=10
    )
    kept.request("GET", "/noop")
    assert kept.getresponse().read() == b"mobula no-op is fine"
    opened = kept.sock
    assert https.shown() == https.der
    new = write_pair(https.cert, https.key)
    wait_until(lambda: https.shown() == new, "new connections are shown the new certificate")
    assert reads(https, "taken") == 1
    kept.request("GET", "/noop")
    assert kept.getresponse().read() == b"mobula no-op is fine"
    assert kept.sock is opened, "the connection that was open is still the same"


def test_a_certificate_that_cannot_be_used_changes_nothing_and_is_told(https: Https) -> None:
    https.cert.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    wait_until(lambda: reads(https, "refused") == 1, "the refusal is counted")
    assert https.shown() == https.der
    assert "changed files refused" in https.server.log_tail()
    new = write_pair(https.cert, https.key)
    wait_until(lambda: https.shown() == new, "a better one is taken")


def refused(server: Server, **options: str) -> str:
    """What the head says to a config with these files."""
    config: Json = server.config([noop()], **options)
    answer = server.put(config)
    assert answer.status_code == 400, answer.text
    assert server.document()["applications"] == {}, "nothing was deployed"
    return answer.text


def test_files_that_cannot_be_used_are_refused_by_name(
    new_server: NewServer, tmp_path: Path
) -> None:
    server = new_server().start()
    cert, key, other = tmp_path / "cert.pem", tmp_path / "key.pem", tmp_path / "other.pem"
    write_pair(cert, key)
    missing = str(tmp_path / "missing.pem")
    said = refused(server, ssl_certfile=missing, ssl_keyfile=str(key))
    assert said.startswith(f"http_options.ssl_certfile: {missing}: No such file"), said
    said = refused(server, ssl_certfile=str(cert), ssl_keyfile=str(cert))
    assert f"http_options.ssl_keyfile: {cert}: holds no private key" in said
    write_pair(tmp_path / "unused.pem", other)
    said = refused(server, ssl_certfile=str(cert), ssl_keyfile=str(other))
    assert f"http_options.ssl_keyfile: {other}: is not the key of the certificate" in said
    write_pair(cert, key, password=b"secret")
    said = refused(server, ssl_certfile=str(cert), ssl_keyfile=str(key))
    assert f"http_options.ssl_keyfile: {key}: is encrypted; ssl_keyfile_password has to" in said
    said = refused(
        server, ssl_certfile=str(cert), ssl_keyfile=str(key), ssl_keyfile_password="public"
    )
    assert "http_options.ssl_keyfile_password: is not the password of the key" in said
    assert "public" not in said
    write_pair(cert, key, password=b"secret", old_form=True)
    said = refused(
        server, ssl_certfile=str(cert), ssl_keyfile=str(key), ssl_keyfile_password="secret"
    )
    assert f"http_options.ssl_keyfile: {key}: is encrypted in the old form of OpenSSL" in said
    write_pair(cert, key)
    said = refused(server, ssl_certfile=str(cert), ssl_keyfile=str(key), ssl_ca_certs=str(key))
    assert f"http_options.ssl_ca_certs: {key}: holds no certificate" in said
    said = refused(server, ssl_certfile=str(cert))
    assert "both ssl_keyfile and ssl_certfile must be provided together" in said


def test_an_encrypted_key_is_used_and_its_password_is_shown_nowhere(
    new_server: NewServer, tmp_path: Path
) -> None:
    password = "correct horse battery staple"
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    der = write_pair(cert, key, password=password.encode())
    https = start_https(new_server(), tmp_path, der, ssl_keyfile_password=password)
    assert https.shown() == https.der
    new = write_pair(cert, key, password=password.encode())
    wait_until(lambda: https.shown() == new, "the next key with the same password is taken")
    server = https.server
    everything = server.log_path.read_text() + server.metrics() + str(server.document())
    assert password not in everything


def test_clients_have_to_show_a_certificate_where_authorities_are_named(
    new_server: NewServer, tmp_path: Path
) -> None:
    der = write_pair(tmp_path / "cert.pem", tmp_path / "key.pem")
    client, stranger = tmp_path / "client", tmp_path / "stranger"
    for folder in (client, stranger):
        folder.mkdir()
        write_pair(folder / "cert.pem", folder / "key.pem")
    # A certificate that signed itself is its own authority.
    ca = str(client / "cert.pem")
    https = start_https(new_server(), tmp_path, der, ssl_ca_certs=ca)
    url = f"https://localhost:{https.server.http_port}/noop"

    def get(shown: Path | None) -> int:
        pair = (str(shown / "cert.pem"), str(shown / "key.pem")) if shown else None
        return requests.get(url, verify=str(https.cert), cert=pair, timeout=10).status_code

    assert get(client) == 200
    for shown in (None, stranger):
        with pytest.raises(requests.ConnectionError):
            get(shown)
    # The authorities are looked at like the certificate.
    (client / "cert.pem").write_bytes((stranger / "cert.pem").read_bytes())
    wait_until(lambda: reads(https, "taken") == 1, "the new authority is in force")
    assert get(stranger) == 200
