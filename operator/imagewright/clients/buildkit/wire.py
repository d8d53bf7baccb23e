"""Protobuf by hand, for the two messages that carry the bulk: one copy of the bytes, not three.

Each holds bytes in one field of type "length-delimited" (protobuf's encoding, wire type 2).
"""

BYTES_MESSAGE_DATA = 0x0A
"""Tag of `data = 1` in moby.buildkit.v1.BytesMessage."""
DATA_HEAD = b"\x08\x02"
"""`type = PACKET_DATA` in fsutil.types.Packet."""
PACKET_ID = b"\x18"
PACKET_DATA = b"\x22"


class WireError(ValueError):
    """Bytes that are not the message they should be."""


def bytes_message(data: bytes) -> bytes:
    """A BytesMessage: what a session's stream is made of, in both directions."""
    return b"".join((bytes((BYTES_MESSAGE_DATA,)), varint(len(data)), data))


def parse_bytes_message(message: bytes) -> bytes:
    """The bytes in a BytesMessage; an empty one has no field at all. Raises WireError."""
    if not message:
        return b""
    size, at = 0, 1
    for shift in range(0, 35, 7):
        byte = message[at] if at < len(message) else 0
        size |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            break
    if message[0] != BYTES_MESSAGE_DATA or len(message) != at + size:
        raise WireError("That is no BytesMessage.")
    return message[at:]


def data_packet(number: int, chunk: bytes) -> bytes:
    """A DATA packet of entry `number`; without content it says that there is no more."""
    place = PACKET_ID + varint(number) if number else b""
    if not chunk:
        return DATA_HEAD + place
    return b"".join((DATA_HEAD, place, PACKET_DATA, varint(len(chunk)), chunk))


def varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first."""
    found = bytearray()
    while number > 0x7F:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)
