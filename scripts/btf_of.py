#!/usr/bin/env python3
"""btf_of.py IMAGE OUT: writes the BTF inside a kernel image, compressed or not, of any architecture.

The image is unpacked by the program that its compression belongs to, and searched for the header of a BTF; exit code 1
where there is none.
"""

import struct
import subprocess
import sys

HEADER = b"\x9f\xeb\x01\x00\x18\x00\x00\x00"
# smaller ones are those of tests inside the kernel
LEAST = 1 << 20
PACKED = {
    b"\x1f\x8b\x08": ["gzip", "-dcq"],
    b"\xfd7zXZ\x00": ["xz", "-dcq"],
    b"\x28\xb5\x2f\xfd": ["zstd", "-dcq"],
    b"\x02\x21\x4c\x18": ["lz4", "-dcq"],
}


def places(data, what):
    at = data.find(what)
    while at >= 0:
        yield at
        at = data.find(what, at + 1)


def btf(data):
    for at in places(data, HEADER):
        types, type_len, strings, string_len = struct.unpack_from("<4I", data, at + 8)
        end = at + 24 + strings + string_len
        if types == 0 and strings == type_len and end - at > LEAST and end <= len(data):
            return data[at:end]
    return None


def unpacked(data):
    yield data
    for magic, program in PACKED.items():
        for at in places(data, magic):
            # what stands behind the archive makes these programs fail, after they have unpacked it
            run = subprocess.run(program, input=data[at:], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False)
            if len(run.stdout) > LEAST:
                yield run.stdout


def main():
    image, out = sys.argv[1:]
    with open(image, "rb") as file:
        data = file.read()
    found = next((it for it in map(btf, unpacked(data)) if it), None)
    if found is None:
        sys.exit(1)
    with open(out, "wb") as file:
        file.write(found)


main()
