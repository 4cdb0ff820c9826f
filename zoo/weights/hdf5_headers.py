"""Reads attributes of strings out of the bytes of an HDF5 file.

HDF5 believes what a file says of strings of variable length: one wrong bit makes it take
4 GB and ten seconds, or search for ever. So these are read here, and bounded.
The layout is that of the "HDF5 File Format Specification", version 3 or older.
"""

from collections.abc import Iterator
import struct
from typing import BinaryIO

MAX_BLOCK_BYTES = 2**20
MAX_BLOCKS = 64
MAX_HEAP_OBJECTS = 100_000

CONTINUATION, ATTRIBUTE = 0x10, 0x0C  # types of messages
SHARED = 0x02  # flag of a message that is kept elsewhere

REFERENCE = struct.Struct("<IQI")  # length of a string, address of its heap, number there
HEAP = struct.Struct("<4sB3xQ")  # signature, version, size
HEAP_OBJECT = struct.Struct("<HHIQ")  # number, references, nothing, size


class HeapStrings:
    """The strings of variable length that objects of a file have as attributes.

    Args:
      file: the HDF5 file, with addresses and lengths of 8 bytes.
    """

    def __init__(self, file: BinaryIO):
        self.file = file
        self.heaps: dict[int, dict[int, tuple[int, int]]] = {}
        self.objects = 0

    def read(self, address: int, name: str, count: int, limit: int) -> list[str] | None:
        """Returns an attribute's strings.

        Args:
          address: of the object that has the attribute.
          name: of the attribute.
          count: how many strings it has.
          limit: how many bytes they may have together.

        Returns:
          None if they have more, or if the attribute is not in the object's header, where
          small ones are.

        Raises:
          ValueError: if the strings are not where they should be.
        """
        size = count * REFERENCE.size
        found = [raw for key, raw in _attributes(self.file, address) if key == name.encode()]
        if len(found) != 1 or len(found[0]) < size:
            return None
        references = list(REFERENCE.iter_unpack(found[0][:size]))
        if sum(length for length, _, _ in references) > limit:
            return None
        return [self.string(*reference) for reference in references]

    def string(self, length: int, address: int, number: int) -> str:
        """Returns the string that a reference leads to."""
        if not length:
            return ""
        start, size = self.heap(address).get(number, (0, 0))
        if size < length:
            raise ValueError(f"no string of {length} bytes at {address}")
        self.file.seek(start)
        return self.file.read(length).split(b"\0")[0].decode()

    def heap(self, address: int) -> dict[int, tuple[int, int]]:
        """Returns places and sizes of a heap's objects, by their numbers."""
        if address in self.heaps:
            return self.heaps[address]
        signature, version, size = HEAP.unpack(_bytes(self.file, address, HEAP.size))
        if (signature, version) != (b"GCOL", 1):
            raise ValueError(f"no heap at {address}")
        found = self.heaps[address] = {}
        place, end = address + HEAP.size, address + size
        while place + HEAP_OBJECT.size <= end:
            number, _, _, size = HEAP_OBJECT.unpack(_bytes(self.file, place, HEAP_OBJECT.size))
            if not number:  # the rest is free
                break
            self.objects += 1
            if self.objects > MAX_HEAP_OBJECTS:
                raise ValueError(f"more than {MAX_HEAP_OBJECTS} strings")
            found[number] = (place + HEAP_OBJECT.size, size)
            place += HEAP_OBJECT.size + -(-size // 8) * 8
        return found


def _attributes(file: BinaryIO, address: int) -> Iterator[tuple[bytes, bytes]]:
    """Yields the names and the values of the attributes in an object's header."""
    for kind, flags, data in _messages(file, address):
        if kind != ATTRIBUTE or flags & SHARED or len(data) < 9:
            continue
        version, *sizes = struct.unpack_from("<BxHHH", data)
        if version == 1:  # its parts are padded
            sizes = [-(-size // 8) * 8 for size in sizes]
        start = 9 if version == 3 else 8
        yield data[start : start + sizes[0]].split(b"\0")[0], data[start + sum(sizes) :]


def _messages(file: BinaryIO, address: int) -> Iterator[tuple[int, int, bytes]]:
    """Yields type, flags and content of the messages that make up an object's header."""
    head = _bytes(file, address, 16)
    second = head.startswith(b"OHDR")
    prefix, blocks = _second_version(file, address) if second else _first_version(address, head)
    for start, size in blocks:
        block = _bytes(file, start, size)
        place = 0
        while place + prefix.size <= len(block):
            kind, length, flags = prefix.unpack_from(block, place)
            place += prefix.size
            data = block[place : place + length]
            place += length
            if kind == CONTINUATION and len(data) >= 16 and len(blocks) < MAX_BLOCKS:
                start, size = struct.unpack_from("<QQ", data)
                # Those of the second version have a signature and a checksum around them.
                blocks.append((start + 4, size - 8) if second else (start, size))
            yield kind, flags, data


def _first_version(address: int, head: bytes) -> tuple[struct.Struct, list[tuple[int, int]]]:
    """Returns what is in front of each message, and where the first block is."""
    (size,) = struct.unpack_from("<8xI", head.ljust(16, b"\0"))
    return struct.Struct("<HHB3x"), [(address + 16, size)]


def _second_version(file: BinaryIO, address: int) -> tuple[struct.Struct, list[tuple[int, int]]]:
    """Returns the same of a header whose fields depend on its flags."""
    flags = _bytes(file, address + 5, 1)[0]
    times, phases, order = 16 * bool(flags & 0x20), 4 * bool(flags & 0x10), bool(flags & 0x04)
    start, width = address + 6 + times + phases, 1 << (flags & 0x03)
    size = int.from_bytes(_bytes(file, start, width), "little")
    return struct.Struct("<BHB2x" if order else "<BHB"), [(start + width, size)]


def _bytes(file: BinaryIO, start: int, size: int) -> bytes:
    """Returns a piece of the file, or nothing where there is none of a believable size."""
    if not (0 <= size <= MAX_BLOCK_BYTES and start < 2**62):
        return b""
    file.seek(start)
    return file.read(size)
