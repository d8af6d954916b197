"""A private certificate authority with one server and one client certificate.

The client's organisational unit differs from the servers': mongod takes a certificate with the
servers' own O, OU and DC for a member of the set.
"""

from __future__ import annotations

import datetime
import ipaddress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

CLIENT_USER = "CN=tidelog-agent,OU=agents,O=Tidelog tests"


@dataclass(frozen=True)
class Certificates:
    """Files of one private authority; `server` and `client` hold certificate and key."""

    ca: Path
    server: Path
    client: Path

    @classmethod
    def create(cls, directory: Path) -> Certificates:
        """Make a new authority and write its files."""
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca = _certificate(_name("Test authority", "ca"), ca_key, None, None)
        server = _leaf(_name("localhost", "mongod"), ca, ca_key)
        client = _leaf(_name("tidelog-agent", "agents"), ca, ca_key)
        made = cls(directory / "ca.crt", directory / "server.pem", directory / "client.pem")
        made.ca.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        made.server.write_bytes(server)
        made.client.write_bytes(client)
        return made


def _name(common: str, unit: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Tidelog tests"),
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


def _leaf(name: x509.Name, ca: x509.Certificate, ca_key: ec.EllipticCurvePrivateKey) -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = _certificate(name, key, ca, ca_key)
    return certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _certificate(
    name: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Certificate | None,
    issuer_key: ec.EllipticCurvePrivateKey | None,
) -> x509.Certificate:
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=30))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer is not None:
        usage = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        builder = builder.add_extension(x509.ExtendedKeyUsage(usage), critical=False)
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(key if issuer_key is None else issuer_key, hashes.SHA256())
