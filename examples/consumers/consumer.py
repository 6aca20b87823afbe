#!/usr/bin/env python3
"""A consumer of Tandem's customer events: verifies them, opens them, and takes each change once.

    pip install confluent-kafka cryptography
    ./consumer.py --bootstrap 127.0.0.1:9092 --sealing-key-file .tandem/sealing.key
    ./consumer.py --bootstrap HOST:9092 --sealing-key-file FILE --trusted-signer KEY --config client.properties

Prints one line of JSON for each change that it takes, and, with --to-end, stops where the topic ended when it began. What it does, and why, is in
docs/consumers.md. It keeps everything in memory and reads from the beginning at each start; a service would keep `customers` in its database,
write each change there with `revision < ?` as the condition, and commit offsets behind the write.
"""

import argparse
import base64
import hashlib
import json
import struct
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

CHANGES, KEYS, CLAIM = "accounts.customer.change", "accounts.customer.key", "!claim/accounts"
UNSIGNED = {"ce_tandemsignature", "ce_traceparent", "ce_tracestate"}


def from_base64url(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


# --- signatures (docs/decisions/0017-signed-events.md) ----------------------------------------------------------------


def leaf(topic: str, key: bytes | None, headers: list[tuple[str, bytes]], body: bytes | None) -> bytes:
    """The hash of what is signed of a record; the topic's name is without prefix."""
    attributes = sorted(
        (name.lower().encode(), value) for name, value in headers
        if (name.lower().startswith("ce_") or name.lower() == "content-type") and name.lower() not in UNSIGNED
    )
    parts = [topic.encode(), key, struct.pack(">Q", len(attributes))]
    for name, value in attributes:
        parts += [name, value]
    form = b"\0"
    for part in [*parts, body]:
        form += struct.pack(">Q", 2**64 - 1 if part is None else len(part)) + (part or b"")
    return hashlib.sha256(form).digest()


def verify(record, topic: str, signers: list[bytes], replaced: dict[bytes, dict]) -> None:
    """Raises ValueError unless one of these keys has signed the record. A replaced one counts for what lies before it was replaced."""
    headers = record.headers() or []
    given = [value for name, value in headers if name.lower() == "ce_tandemsignature"]
    if len(given) != 1 or not given[0].startswith(b"v1."):
        raise ValueError("it has no signature, or more than one")
    signature = from_base64url(given[0][3:].decode())
    key_id, signed, steps = signature[:8], signature[8:72], signature[72:]
    if len(signed) != 64 or len(steps) % 33 or len(steps) > 8 * 33:
        raise ValueError("its signature is none")
    root = leaf(topic, record.key(), headers, record.value())
    for at in range(0, len(steps), 33):
        other = steps[at + 1:at + 33]
        root = hashlib.sha256(b"\1" + (root + other if steps[at] == 1 else other + root)).digest()
    signer = next((key for key in signers if hashlib.sha256(key).digest()[:8] == key_id), None)
    if signer is None:
        raise ValueError("it is signed by nobody who may write here")
    if signer in replaced and record.offset() >= replaced[signer].get(topic, {}).get(str(record.partition()), 0):
        raise ValueError("it is signed by a key that had been replaced")
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(signed, b"tandem signature v1\0" + root)
    except InvalidSignature:
        raise ValueError("it was changed since it was signed") from None


# --- sealing (docs/decisions/0009-erasure.md, 0019-replacing-the-sealing-key.md) ---------------------------------------


def open_sealed(sealed: str, keys: list[bytes], place: str) -> bytes:
    """AES-256-GCM: nonce (12 bytes), ciphertext and tag; `v2.` names its key between the dots, which need not be looked at."""
    sealed_bytes = from_base64url(sealed.rpartition(".")[2])
    for key in keys:
        try:
            return AESGCM(key).decrypt(sealed_bytes[:12], sealed_bytes[12:], place.encode())
        except InvalidTag:
            continue
    raise ValueError("no key opens it")


class Reader:
    """What is known: whose signatures count, the customers' keys, the customers."""

    def __init__(self, sealing_keys: list[bytes], signers: list[bytes], prefix: str = "") -> None:
        self.sealing_keys = sealing_keys
        self.signers = signers
        self.is_pinned = bool(signers)
        self.prefix = prefix
        self.replaced: dict[bytes, dict] = {}
        self.claim_number = 0
        self.signed_from: dict[str, dict[str, int]] = {}
        self.data_keys: dict[str, str | None] = {}
        self.customers: dict[str, dict] = {}
        self.waiting: dict[str, list[dict]] = {}

    def verify(self, record) -> None:
        """Raises ValueError unless accounts has signed the record, or it is from before there were signatures."""
        topic = record.topic().removeprefix(self.prefix)
        if record.offset() >= self.signed_from.get(topic, {}).get(str(record.partition()), 0):
            verify(record, topic, self.signers, self.replaced)

    def take_key(self, record) -> None:
        key = (record.key() or b"").decode()
        if key == CLAIM:
            self.take_claim(record)
            return
        self.verify(record)
        if record.value() is None:
            # The proof that this customer was erased. A key that comes after it counts for nothing.
            self.data_keys[key] = None
            self.forget(key)
        elif self.data_keys.get(key, "") is not None:
            self.data_keys[key] = json.loads(record.value())["wrapped"]
            for change in self.waiting.pop(key, []):
                # Each for itself: one that is still not to be opened waits again, and none behind it is lost.
                reported(f"{key}, revision {change.get('revision')}, which waited,", self.take, change)

    def take_claim(self, record) -> None:
        """Says what accounts signs with. The first one is believed, unless its key was given; later ones must be signed by a known key."""
        if record.value() is None:
            return
        claim = json.loads(record.value())
        keys = [base64.b64decode(key) for key in claim.get("verifying_keys", [])]
        verify(record, KEYS, self.signers if self.is_pinned else keys, self.replaced)
        if claim.get("number", 0) < self.claim_number:
            raise ValueError("it is an old claim that somebody has written again")
        self.signers, self.is_pinned, self.claim_number = keys, True, claim.get("number", 0)
        self.replaced = {base64.b64decode(one["key"]): one["before"] for one in claim.get("replaced_keys", [])}
        self.signed_from = claim.get("signed_from", {})

    def take_change(self, record) -> None:
        self.verify(record)
        self.take(json.loads(record.value()))

    def take(self, change: dict) -> None:
        """Takes a change once: the log may repeat events, and the revision tells which is newer."""
        id, revision = change["id"], change["revision"]
        known = self.customers.get(id)
        if known and known["revision"] >= revision:
            return
        if change["changeType"] == "ERASED":
            self.data_keys[id] = None
        wrapped = self.data_keys.get(id, "")
        if wrapped is None:
            self.forget(id, revision)
            return
        if "sealed" in change and change["sealed"]:
            try:
                if not wrapped:
                    raise ValueError("it has not come")
                data_key = open_sealed(wrapped, self.sealing_keys, f"data-key/{id}")
                person = open_sealed(change["sealed"], [data_key], f"customer/{id}/{revision}")
            except ValueError as error:
                # Its key has not come yet, or another one has. That proves nothing: it waits, and nobody else with it.
                self.waiting.setdefault(id, []).append(change)
                print(f"consumer: {id}, revision {revision}, waits for its key: {error}", file=sys.stderr)
                return
            change = change | json.loads(person)
        self.customers[id] = {"id": id, "revision": revision, "changeType": change["changeType"], "name": change["name"],
                              "email": change["contact"].get("email")}
        self.tell(self.customers[id])

    def forget(self, id: str, revision: int = 0) -> None:
        self.waiting.pop(id, None)
        known = self.customers.get(id)
        if known and known["changeType"] == "ERASED" and known["revision"] >= revision:
            return
        revision = max(revision, known["revision"] if known else 0)
        self.customers[id] = {"id": id, "revision": revision, "changeType": "ERASED"}
        self.tell(self.customers[id])

    @staticmethod
    def tell(customer: dict) -> None:
        print(json.dumps(customer, sort_keys=True), flush=True)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--bootstrap", default="127.0.0.1:9092", help="Kafka's servers")
    arguments.add_argument("--sealing-key-file", required=True, help="the services' sealing key, or keys, in base64")
    arguments.add_argument("--trusted-signer", action="append", default=[], help="accounts' verifying key in base64, if it is known")
    arguments.add_argument("--topic-prefix", default="", help="what the names of the topics begin with")
    arguments.add_argument("--config", help="a file with librdkafka's properties, one KEY=VALUE a line: security.protocol, sasl.username, …")
    arguments.add_argument("--to-end", action="store_true", help="stop where the topics ended at the start")
    given = arguments.parse_args()
    with open(given.sealing_key_file, encoding="ascii") as file:
        sealing_keys = [base64.b64decode(key) for key in file.read().replace(",", " ").split()]
    reader = Reader(sealing_keys, [base64.b64decode(key) for key in given.trusted_signer], given.topic_prefix)

    consumer = Consumer({"bootstrap.servers": given.bootstrap, "group.id": "example", **properties(given.config), "enable.auto.commit": False,
                         "isolation.level": "read_committed", "enable.partition.eof": True})
    # Keys first: so most events open at once.
    takes = {given.topic_prefix + KEYS: reader.take_key, given.topic_prefix + CHANGES: reader.take_change}
    read: dict[tuple[str, int], int] = {}
    for topic, take in takes.items():
        read |= read_to_end(consumer, topic, take)
    if not given.to_end:
        follow(consumer, read, takes)
    consumer.close()


def properties(path: str | None) -> dict[str, str]:
    """Of a file, so that a password stands on no command line."""
    if path is None:
        return {}
    with open(path, encoding="utf-8") as file:
        lines = [line.strip() for line in file]
    named = (line.partition("=") for line in lines if line and not line.startswith("#"))
    return {name.strip(): value.strip() for name, _, value in named}


def read_to_end(consumer, topic: str, take) -> dict[tuple[str, int], int]:
    """Reads a topic to where it ends now; answers where that is in each partition."""
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
    ends: dict[tuple[str, int], int] = {}
    while len(ends) < len(partitions):
        record = consumer.poll(1)
        if record is None:
            continue
        if record.error() and record.error().name() == "_PARTITION_EOF":
            ends[topic, record.partition()] = record.offset()
        elif record.error():
            print(f"consumer: {record.error()}", file=sys.stderr)
        else:
            reported(place(record), take, record)
    return ends


def follow(consumer, read: dict[tuple[str, int], int], takes: dict) -> None:
    """Goes on with both topics from where reading ended."""
    consumer.assign([TopicPartition(topic, partition, offset) for (topic, partition), offset in read.items()])
    while True:
        record = consumer.poll(1)
        if record is not None and not record.error():
            reported(place(record), takes[record.topic()], record)


def place(record) -> str:
    return f"{record.topic()}[{record.partition()}]@{record.offset()}"


def reported(what: str, take, thing) -> None:
    """One bad thing costs itself: it is told of, and the next one is taken."""
    try:
        take(thing)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        print(f"consumer: {what} is not taken: {error}", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        pass
